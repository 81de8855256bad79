#include "codegen/cubin.h"
#include <elf.h>
#include <stdio.h>
#include <string.h>

typedef struct Elf {
        const u8 *p;
        u64 bytes;
        Elf64_Ehdr head;
} Elf;

/* n bytes at `at`, copied, for nothing in the file need be aligned. */
static bool get(const Elf *e, u64 at, void *to, u64 n)
{
        if (at > e->bytes || n > e->bytes - at)
                return false;
        memcpy(to, e->p + at, n);
        return true;
}

static bool section(const Elf *e, u32 i, Elf64_Shdr *s)
{
        return i < e->head.e_shnum && get(e, e->head.e_shoff + (u64)i * sizeof *s, s, sizeof *s);
}

static bool named(const Elf *e, u32 strings, u64 at, const char *name)
{
        Elf64_Shdr s;
        u64 n = strlen(name) + 1;
        return section(e, strings, &s) && at < s.sh_size && n <= s.sh_size - at && s.sh_offset <= e->bytes &&
               s.sh_offset + at <= e->bytes && n <= e->bytes - s.sh_offset - at &&
               !memcmp(e->p + s.sh_offset + at, name, n);
}

/* The initial value of a variable of four bytes. */
static bool variable(const Elf *e, const Elf64_Shdr *table, const char *name, u32 *v)
{
        for (u64 at = 0; at + sizeof(Elf64_Sym) <= table->sh_size; at += sizeof(Elf64_Sym)) {
                Elf64_Sym sym;
                Elf64_Shdr s;
                if (get(e, table->sh_offset + at, &sym, sizeof sym) &&
                        named(e, table->sh_link, sym.st_name, name) && section(e, sym.st_shndx, &s) &&
                        s.sh_type == SHT_PROGBITS)
                        return get(e, s.sh_offset + sym.st_value, v, sizeof *v);
        }
        return false;
}

bool cubin_shared(const void *p, u64 bytes, const char *kernel, u64 *shared)
{
        Elf e = {.p = p, .bytes = bytes};
        char declared[160], wanted[160];
        snprintf(declared, sizeof declared, ".nv.shared.%s", kernel);
        snprintf(wanted, sizeof wanted, "%s_shared", kernel);
        *shared = 0;
        if (!get(&e, 0, &e.head, sizeof e.head) || memcmp(e.head.e_ident, ELFMAG, SELFMAG) != 0 ||
                e.head.e_ident[EI_CLASS] != ELFCLASS64 || e.head.e_shentsize != sizeof(Elf64_Shdr))
                return false;
        for (u32 i = 0; i < e.head.e_shnum; i++) {
                Elf64_Shdr s;
                u32 v;
                if (!section(&e, i, &s))
                        return false;
                if (s.sh_type == SHT_SYMTAB && variable(&e, &s, wanted, &v))
                        *shared += v;
                else if (named(&e, e.head.e_shstrndx, s.sh_name, declared))
                        *shared += s.sh_size;
        }
        return true;
}

/* CUDA C++ Programming Guide, "Technical Specifications per Compute Capability". */
u64 cubin_shared_most(u32 cc)
{
        if (cc == 80 || cc == 87)
                return 163 << 10;
        return cc >= 90 && cc < 120 ? 227 << 10 : 99 << 10;
}
