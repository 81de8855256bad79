# moec: make demo runs the main job, make check the tests. See README.md.
.DEFAULT_GOAL := all
B       ?= build
CC      ?= cc
OPT     ?= -O2 -g
WARN    := -Wall -Wextra -Wpedantic -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wwrite-strings
FLAGS   := -std=c11 -D_GNU_SOURCE -I. -I$(B) -fPIC -pthread -ffp-contract=off -fvisibility=hidden
LUA     := $(shell pkg-config --variable=includedir lua5.4 2>/dev/null)
CFLAGS  ?=
ALLC     = $(FLAGS) $(WARN) $(OPT) $(CFLAGS) -MMD -MP
STATIC  := -Wl,-Bstatic -llua5.4 -lpcre2-8 -lxxhash -Wl,-Bdynamic
STATICRT:= -Wl,-Bstatic -lpcre2-8 -lxxhash -Wl,-Bdynamic
LIBS    := -lm -ldl -pthread

# What a compiled executable links: the runtime and nothing of the compiler.
RT_SRC  := ir/util.c ir/types.c $(wildcard runtime/*.c)
CL_SRC  := $(filter-out ir/util.c ir/types.c,$(wildcard ir/*.c)) $(wildcard frontend/*.c passes/*.c codegen/*.c) $(wildcard *.c)
CLI_SRC := $(wildcard cli/*.c)
RT_OBJ  := $(RT_SRC:%.c=$(B)/%.o)
CL_OBJ  := $(CL_SRC:%.c=$(B)/%.o)
STUB_OBJ:= $(B)/cli/run.o $(B)/cli/common.o $(B)/cli/stub.o
CLI_OBJ := $(filter-out $(B)/cli/stub.o,$(CLI_SRC:%.c=$(B)/%.o))

include tests/tests.mk

all: $(B)/moec

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALLC) -c $< -o $@
