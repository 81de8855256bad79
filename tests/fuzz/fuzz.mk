# make fuzz: each target of tests/fuzz/ for FUZZ_SECONDS under libFuzzer with the address and undefined-behaviour sanitizers, from
# the seeds in tests/fuzz/corpus/. What it finds stays in $(B)/fuzz/. make fuzz-seeds writes the seeds anew.
FUZZ_SECONDS ?= 120
FUZZ_CC      ?= clang
FUZZ_SAN     := -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all
FUZZ_UTIL    := ir/util.c ir/types.c
FUZZ_TOKEN   := $(wildcard runtime/token*.c) runtime/utf8.c
FUZZ_PLAN    := runtime/plan.c runtime/plan_write.c runtime/pack.c
FUZZ_HEADERS := $(wildcard tests/hostile/*.h ir/*.h frontend/*.h runtime/*.h)

# $(call FUZZER,name,sources)
define FUZZER
$(B)/fuzz/$(1): tests/fuzz/$(1).c $(2) $(FUZZ_UTIL) $(FUZZ_HEADERS)
	@mkdir -p $$(@D)
	$(FUZZ_CC) $$(FLAGS) $$(WARN) -O1 -g $(FUZZ_SAN) $$(filter %.c,$$^) -o $$@ $$(LIBS)

.PHONY: fuzz-$(1)
fuzz-$(1): $(B)/fuzz/$(1)
	@mkdir -p $(B)/fuzz/found-$(1)
	$$< $(B)/fuzz/found-$(1) tests/fuzz/corpus/$(1) -dict=tests/fuzz/$(1).dict -max_total_time=$$(FUZZ_SECONDS) \
		-timeout=5 -rss_limit_mb=1024 -malloc_limit_mb=64 -max_len=16384 -artifact_prefix=$(B)/fuzz/$(1)- \
		-print_final_stats=1
fuzz: fuzz-$(1)
endef

.PHONY: fuzz fuzz-seeds
$(eval $(call FUZZER,gguf,frontend/gguf.c frontend/gguf_part.c))
$(eval $(call FUZZER,plan,$(FUZZ_PLAN) $(FUZZ_TOKEN)))
$(eval $(call FUZZER,token,$(FUZZ_TOKEN)))

$(B)/fuzz/seeds: tests/fuzz/seeds.c $(FUZZ_PLAN) $(FUZZ_TOKEN) $(FUZZ_UTIL) $(FUZZ_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(FLAGS) $(WARN) -O1 -g $(filter %.c,$^) -o $@ $(LIBS)

fuzz-seeds: $(B)/fuzz/seeds
	@mkdir -p tests/fuzz/corpus
	$< tests/fuzz/corpus
