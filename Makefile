# moec. make demo: the main job, from the clone to a story. make check: the tests. make install PREFIX=...
.DEFAULT_GOAL := all
B      ?= build
CC     ?= cc
PREFIX ?= /usr/local
OPT    ?= -O2 -g
WERROR ?= $(if $(CI),-Werror)
WARN   := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wwrite-strings $(WERROR)
FLAGS  := -std=c11 -D_GNU_SOURCE -I. -fPIC -pthread -ffp-contract=off -fvisibility=hidden -ffile-prefix-map=$(CURDIR)=.
ALLC    = $(FLAGS) $(WARN) $(OPT) $(CFLAGS)
LIBS   := -Wl,-Bstatic -lpcre2-8 -llua5.4 -Wl,-Bdynamic -lm -ldl
LIBSRT := -Wl,-Bstatic -lpcre2-8 -Wl,-Bdynamic -lm -ldl
SAY     = $(if $(V),,@echo '  $@';)# V=1: show the commands

# All processors by default; a make inside this one gets its share from it.
MAKEFLAGS += -r --no-print-directory
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc)
endif

# RT is what a compiled executable links: the runtime and nothing of the compiler. CL is the compiler.
RT_SRC  := ir/util.c ir/types.c $(wildcard runtime/*.c)
CL_SRC  := $(filter-out $(RT_SRC),$(wildcard ir/*.c frontend/*.c passes/*.c codegen/*.c *.c))
CLI_SRC := $(filter-out cli/stub.c,$(wildcard cli/*.c))
RT_OBJ  := $(RT_SRC:%.c=$(B)/%.o)
CL_OBJ  := $(CL_SRC:%.c=$(B)/%.o) $(B)/embed.o
CLI_OBJ := $(CLI_SRC:%.c=$(B)/%.o)
STUB_OBJ:= $(RT_OBJ) $(B)/cli/run.o $(B)/cli/common.o $(B)/cli/stub.o

all: $(B)/moec

include tests/tests.mk

$(B)/moec: $(CLI_OBJ) $(B)/libmoec.a
	$(SAY)$(CC) -pthread $(OPT) $(CFLAGS) $(LDFLAGS) $^ $(LIBS) -o $@

# Stripped, as every compiled executable starts with its bytes.
$(B)/moec-stub: $(STUB_OBJ)
	$(SAY)$(CC) -pthread -s $(OPT) $(CFLAGS) $(LDFLAGS) $^ $(LIBSRT) -o $@

$(B)/libmoec.a: $(RT_OBJ) $(CL_OBJ)
	@rm -f $@
	$(SAY)$(AR) rcs $@ $^

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(SAY)$(CC) $(ALLC) -MMD -MP -c $< -o $@

# The files that moec carries, as frontend/embed.h's table: a name is the file's path below frontend, passes or codegen.
# Folders are prerequisites too, so that a file that came or went is seen.
EMBED := $(wildcard frontend/arch/*.lua passes/pipeline.lua codegen/tune.lua) $(sort $(shell find templates -name '*.m4'))
$(B)/embed.S: Makefile $(shell find templates -type d) frontend/arch
	@mkdir -p $(@D)
	@{ printf '.section .rodata\n'; \
	i=0; for f in $(EMBED) $(B)/moec-stub; do i=$$((i + 1)); \
		case $$f in *moec-stub) n=stub;; *) n=$$(echo $$f | sed 's,^\(frontend\|passes\|codegen\)/,,');; esac; \
		printf 'n%d: .asciz "%s"\n.balign 16\nf%d: .incbin "%s"\ne%d:\n' $$i $$n $$i $$f $$i; done; \
	printf '.section .data.rel.ro,"aw"\n.balign 8\n.globl embed_files\n.hidden embed_files\nembed_files:\n'; \
	for k in $$(seq $$i); do printf '.quad n%d, f%d, e%d - f%d\n' $$k $$k $$k $$k; done; \
	printf '.quad 0, 0, 0\n.section .note.GNU-stack,"",%%progbits\n'; } >$@

$(B)/embed.o: $(B)/embed.S $(EMBED) $(B)/moec-stub
	$(SAY)$(CC) -c $< -o $@

deps:
	@tests/deps.sh build
deps-all:
	@tests/deps.sh build check

demo:
	@tests/deps.sh build
	@$(MAKE) all
	$(B)/moec compile examples/fables.gguf -o $(B)/fables
	$(B)/fables -p "Once upon a time" -n 200

install: all
	install -D -m 755 $(B)/moec $(DESTDIR)$(PREFIX)/bin/moec
	install -D -m 644 moec.h $(DESTDIR)$(PREFIX)/include/moec.h
	install -D -m 644 $(B)/libmoec.a $(DESTDIR)$(PREFIX)/lib/libmoec.a
	install -D -m 644 docs/moec.1 $(DESTDIR)$(PREFIX)/share/man/man1/moec.1

clean:
	rm -rf $(B)

.PHONY: all deps deps-all demo install clean
-include $(patsubst %.o,%.d,$(RT_OBJ) $(CL_OBJ) $(CLI_OBJ) $(STUB_OBJ) $(T_OBJ))
