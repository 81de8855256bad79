# Every tests/DIR/NAME.c of these folders is a cmocka program of its own, $(B)/tests/DIR/NAME, linked with the library and
# what tests/lib holds. Every .sh of these folders is a test as it is. tests/slow runs in check-all only.
T_DIRS   := unit ir pass num token hostile
T_SRC    := $(wildcard $(T_DIRS:%=tests/%/*.c))
T_SLOW   := $(wildcard tests/slow/*.c)
T_LIB    := $(patsubst %.c,$(B)/%.o,$(wildcard tests/lib/*.c))
T_BIN    := $(T_SRC:%.c=$(B)/%)
T_SH     := $(filter-out %/lib.sh,$(wildcard tests/e2e/*.sh)) $(wildcard tests/layers.sh)
export B MODELS

$(T_BIN) $(T_SLOW:%.c=$(B)/%): $(B)/%: $(B)/%.o $(T_LIB) $(B)/libmoec.a
	@$(CC) -pthread $(OPT) $(CFLAGS) $(LDFLAGS) $^ -lcmocka $(LIBS) -o $@

# One program alone: make build/tests/unit/gguf && build/tests/unit/gguf
unit: $(filter $(B)/tests/unit/% $(B)/tests/num/%,$(T_BIN))
	@tests/run.sh $^

.PHONY: unit
