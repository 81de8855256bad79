# Every tests/FOLDER/NAME.c of these folders is a cmocka program of its own, linked with the library and with what tests/lib
# holds; every .sh is a test as it is (see tests/run.sh). make check runs them; make check-all runs them once more under each
# sanitizer build and compiler, and tests/slow. One alone: make build/tests/unit/gguf && build/tests/unit/gguf
T_SRC  := $(wildcard $(patsubst %,tests/%/*.c,num unit ir pass token hostile))
T_SLOW := $(wildcard tests/slow/*.c)
T_SH   := tests/layers.sh $(filter-out %/lib.sh,$(wildcard tests/e2e/*.sh))
T_LIB  := $(patsubst %.c,$(B)/%.o,$(wildcard tests/lib/*.c))
T_GPU  := $(wildcard tests/gpu/*.c)
T_OBJ  := $(T_LIB) $(T_SRC:%.c=$(B)/%.o) $(T_SLOW:%.c=$(B)/%.o) $(T_GPU:%.c=$(B)/%.o)
T_BIN  := $(T_SRC:%.c=$(B)/%)
FAKE   := $(B)/tests/fake/cuda.so $(B)/tests/fake/nvrtc.so
export B CC OPT MODELS

$(T_BIN) $(T_SLOW:%.c=$(B)/%): $(B)/%: $(B)/%.o $(T_LIB) $(B)/libmoec.a
	$(SAY)$(CC) -pthread $(OPT) $(CFLAGS) $(LDFLAGS) $^ -lcmocka $(LIBS) -o $@

# Libraries that pretend to be CUDA's; the driver is found by its name once it is loaded.
$(B)/tests/fake/%.so: tests/fake/%.c tests/fake/fake.h tests/fake/elf.h runtime/driver.h
	@mkdir -p $(@D)
	$(SAY)$(CC) $(ALLC) -shared -Wl,-soname,$(if $(filter cuda,$*),libcuda.so.1,$*) $< -o $@
$(filter $(B)/tests/unit/%,$(T_BIN)): | $(FAKE)

unit: $(filter $(B)/tests/unit/% $(B)/tests/num/%,$(T_BIN))
	@tests/run.sh $^

check:
	@tests/deps.sh build
	@$(MAKE) suite

# SUM: where tests/run.sh leaves its totals.
suite: all $(T_BIN)
	@tests/run.sh $(SUM:%=-t %) $(T_SH) $(T_BIN)
suite-slow: all $(T_BIN) $(T_SLOW:%.c=$(B)/%)
	@TEST_TIMEOUT=1800 tests/run.sh $(SUM:%=-t %) $(wildcard tests/slow/*.sh) $(T_SLOW:%.c=$(B)/%)

# On a machine with a CUDA device. To run it where nothing can be built: copy the tree with its build folder, then
# tests/gpu/run.sh build
check-gpu: all $(T_GPU:%.c=$(B)/%)
	@tests/gpu/run.sh $(B)
$(T_GPU:%.c=$(B)/%): $(B)/%: $(B)/%.o $(patsubst %,$(B)/tests/lib/%.o,synth randdata tempdir) $(B)/libmoec.a
	$(SAY)$(CC) -pthread $(OPT) $(CFLAGS) $(LDFLAGS) $^ $(LIBS) -o $@

# What uses threads, for the thread sanitizer.
T_TSAN := $(patsubst %,$(B)/tests/unit/%,exec kv cache eval eval_moe)
suite-threads: $(T_TSAN)
	@tests/run.sh $(SUM:%=-t %) $(T_TSAN)

# A suite that does not even build counts as one failure: its sum is there before it starts. What cc makes of the kernels is the
# same in every suite.
SUITES   := slow asan threads clang
ASAN     := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
run_suite = +@echo '== $(1)'; $(MAKE) SUM=$(B)/sum/$(1) CACHE=$(B)/cache $(2) || true
check-all:
	@tests/deps.sh build check
	@rm -rf $(B)/cache; mkdir -p $(B)/sum; for s in $(SUITES); do echo 0 1 0 >$(B)/sum/$$s; done
	$(call run_suite,slow,suite-slow)
	$(call run_suite,asan,B=$(B)/asan OPT='$(ASAN)' WERROR=-w TEST_TIMEOUT=1800 suite)
	$(call run_suite,threads,B=$(B)/tsan OPT='-O1 -g -fsanitize=thread' WERROR=-w TEST_TIMEOUT=1800 suite-threads)
	$(call run_suite,clang,B=$(B)/clang CC=clang WERROR=-Werror suite)
	@tests/run.sh -s $(SUITES:%=$(B)/sum/%)

-include tests/fuzz/fuzz.mk
.PHONY: unit check check-all check-gpu suite suite-slow suite-threads
