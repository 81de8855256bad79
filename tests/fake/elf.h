/* A CUBIN of a kernel with shared memory, as far as codegen/cubin.c looks: sections' and symbols' names, one
 * symbol, a variable. */
#ifndef FAKE_ELF_H
#define FAKE_ELF_H
#include "ir/util.h"
#include <elf.h>
#include <stdio.h>
#include <string.h>

enum { FAKE_ELF = 1024 };

/* declared, wanted: bytes. p is aligned to 8. */
static inline void fake_elf(u8 p[FAKE_ELF], const char *kernel, u32 declared, u32 wanted)
{
        enum { SECTIONS = 64, TEXT = 512, SYMBOL = 896, VALUE = 960, AT = 4 };
        Elf64_Ehdr *h = (Elf64_Ehdr *)(void *)p;
        Elf64_Shdr *s = (Elf64_Shdr *)(void *)(p + SECTIONS);
        Elf64_Sym *sym = (Elf64_Sym *)(void *)(p + SYMBOL);
        memset(p, 0, FAKE_ELF);
        memcpy(h->e_ident, ELFMAG, SELFMAG);
        h->e_ident[EI_CLASS] = ELFCLASS64;
        h->e_shoff = SECTIONS;
        h->e_shentsize = sizeof *s;
        h->e_shnum = 5;
        h->e_shstrndx = 1;
        s[1] = (Elf64_Shdr){.sh_type = SHT_STRTAB, .sh_offset = TEXT, .sh_size = SYMBOL - TEXT};
        s[2] = (Elf64_Shdr){.sh_type = SHT_SYMTAB, .sh_offset = SYMBOL, .sh_size = sizeof *sym, .sh_link = 1};
        s[3] = (Elf64_Shdr){.sh_type = SHT_PROGBITS, .sh_offset = VALUE, .sh_size = 8};
        s[4] = (Elf64_Shdr){.sh_type = SHT_NOBITS, .sh_name = 1, .sh_offset = VALUE, .sh_size = declared};
        int n = snprintf((char *)p + TEXT + 1, 180, ".nv.shared.%s", kernel);
        snprintf((char *)p + TEXT + 2 + n, 180, "%s_shared", kernel);
        *sym = (Elf64_Sym){.st_name = (u32)n + 2, .st_shndx = 3, .st_value = AT};
        memcpy(p + VALUE + AT, &wanted, sizeof wanted);
}

#endif
