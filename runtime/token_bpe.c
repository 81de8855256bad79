/* A piece to tokens: merges by rank. */
#include <stdlib.h>
#include <string.h>
#include "runtime/token_blob.h"

#define SHORT 48 /* symbols up to which scanning all pairs beats a heap */

bool bpe_put(Bpe *b, u32 id)
{
        if (b->n == b->cap) {
                size_t cap = b->cap ? b->cap * 2 : 256;
                i32 *p = realloc(b->id, cap * sizeof *p);
                if (!p)
                        return false;
                b->id = p;
                b->cap = cap;
        }
        b->id[b->n++] = (i32)id;
        return true;
}

/* A vocabulary may lack the bytes that UTF-8 never has: they become U+FFFD. */
bool bpe_byte(Bpe *b, u8 c)
{
        const u32 *byte = b->v->head->byte;
        if (byte[c] != NO_ID)
                return bpe_put(b, byte[c]);
        return bpe_put(b, byte[0xef]) && bpe_put(b, byte[0xbf]) && bpe_put(b, byte[0xbd]);
}

u32 word_find(const TokenView *v, const char *p, size_t n)
{
        const TokenHead *h = v->head;
        u32 mask = (1u << h->word_bits) - 1, s = word_slot(hash_str(p, n), h->word_seed, h->word_bits);
        for (u32 i = 0; i < PROBES; i++) {
                u32 id = v->word[(s + i) & mask];
                if (id == NO_ID)
                        return NO_ID;
                if (text_len(v, id) == n && !memcmp(text_of(v, id), p, n))
                        return id;
        }
        return NO_ID;
}

/* Merges the n symbols of id in place; returns how many are left. rank[i]: of the pair (i, i + 1). */
static u32 merge_short(const TokenView *v, u32 *id, u32 n)
{
        u32 rank[SHORT], result[SHORT];
#define PAIR(i)                                                                                              \
        do {                                                                                                 \
                const Merge *m_ = merge_find(v, id[i], id[(i) + 1]);                                         \
                rank[i] = m_ ? m_->rank : NO_ID;                                                             \
                result[i] = m_ ? m_->result : NO_ID;                                                         \
        } while (0)
        for (u32 i = 0; i + 1 < n; i++)
                PAIR(i);
        while (n > 1) {
                u32 best = 0;
                for (u32 i = 1; i + 1 < n; i++)
                        if (rank[i] < rank[best])
                                best = i;
                if (rank[best] == NO_ID)
                        break;
                id[best] = result[best];
                n--;
                size_t rest = n - best - 1;
                memmove(id + best + 1, id + best + 2, rest * sizeof *id);
                memmove(rank + best, rank + best + 1, rest * sizeof *rank);
                memmove(result + best, result + best + 1, rest * sizeof *result);
                if (best + 1 < n)
                        PAIR(best);
                if (best > 0)
                        PAIR(best - 1);
        }
#undef PAIR
        return n;
}

/* ---- long pieces: a linked list of symbols and a heap of the pairs that merge, O(n log n) ---- */

typedef struct Symbol {
        u32 id, prev, next; /* id NO_ID: merged into its left neighbour */
} Symbol;

typedef struct Long {
        const TokenView *v;
        Symbol *sym;
        u64 *heap; /* rank << 32 | left symbol: lowest rank first, then leftmost */
        size_t n;
} Long;

static void heap_push(Long *l, u64 key)
{
        size_t i = l->n++;
        for (; i && l->heap[(i - 1) / 2] > key; i = (i - 1) / 2)
                l->heap[i] = l->heap[(i - 1) / 2];
        l->heap[i] = key;
}

static u64 heap_pop(Long *l)
{
        u64 top = l->heap[0], key = l->heap[--l->n];
        size_t i = 0;
        for (size_t k; (k = 2 * i + 1) < l->n; i = k) {
                if (k + 1 < l->n && l->heap[k + 1] < l->heap[k])
                        k++;
                if (l->heap[k] >= key)
                        break;
                l->heap[i] = l->heap[k];
        }
        l->heap[i] = key;
        return top;
}

static const Merge *pair(const Long *l, u32 left)
{
        const Symbol *s = &l->sym[left];
        return s->id == NO_ID || s->next == NO_ID ? NULL : merge_find(l->v, s->id, l->sym[s->next].id);
}

static void offer(Long *l, u32 left)
{
        const Merge *m = pair(l, left);
        if (m)
                heap_push(l, (u64)m->rank << 32 | left);
}

static bool merge_long(Bpe *b, const u8 *p, u32 n)
{
        /* Every merge takes one pair from the heap and offers two: never more than n + 2 n of them in all. */
        size_t need = (size_t)n * (sizeof(Symbol) + 3 * sizeof(u64));
        if (b->scratch_size < need) {
                free(b->scratch);
                b->scratch = malloc(need);
                b->scratch_size = b->scratch ? need : 0;
                if (!b->scratch)
                        return false;
        }
        Long l = {.v = b->v, .heap = b->scratch};
        l.sym = (Symbol *)(l.heap + (size_t)n * 3);
        for (u32 i = 0; i < n; i++)
                l.sym[i] = (Symbol){b->v->head->byte[p[i]], i ? i - 1 : NO_ID, i + 1 < n ? i + 1 : NO_ID};
        for (u32 i = 0; i < n; i++)
                offer(&l, i);
        while (l.n) {
                u64 key = heap_pop(&l);
                u32 left = (u32)key;
                Symbol *s = &l.sym[left];
                const Merge *m = pair(&l, left);
                if (!m || m->rank != key >> 32) /* one of the two has been merged since */
                        continue;
                s->id = m->result;
                l.sym[s->next].id = NO_ID;
                s->next = l.sym[s->next].next;
                if (s->next != NO_ID)
                        l.sym[s->next].prev = left;
                if (s->prev != NO_ID)
                        offer(&l, s->prev);
                offer(&l, left);
        }
        for (u32 i = 0; i != NO_ID; i = l.sym[i].next)
                if (!bpe_put(b, l.sym[i].id))
                        return false;
        return true;
}

bool bpe_piece(Bpe *b, const char *p, size_t n)
{
        if (b->v->head->word_bits) {
                u32 id = word_find(b->v, p, n);
                if (id != NO_ID)
                        return bpe_put(b, id);
        }
        const u8 *s = (const u8 *)p;
        if (n > SHORT)
                return merge_long(b, s, (u32)n);
        u32 id[SHORT];
        for (size_t i = 0; i < n; i++)
                id[i] = b->v->head->byte[s[i]];
        u32 left = merge_short(b->v, id, (u32)n);
        for (u32 i = 0; i < left; i++)
                if (!bpe_put(b, id[i]))
                        return false;
        return true;
}
