// Coverage of the C libraries. The C compiler calls __sanitizer_cov_trace_pc in every block (-fsanitize-coverage=trace-pc);
// libFuzzer reads counters from the section __libfuzzer_extra_counters. They show in its "ft:", not in its "cov:".
// This file is C++ only so that it is compiled without the flags that the C libraries get.

#include <cstdint>

static const unsigned kCounters = 1 << 14;
__attribute__((section("__libfuzzer_extra_counters"), used)) static uint8_t counters[kCounters];

extern "C" void __sanitizer_cov_trace_pc() {
  // Relative to something in the same program, since that lies elsewhere in every run. Blocks of one name are rare
  // among these few thousand, and cost only that they are told apart no more.
  uintptr_t block = (uintptr_t)__builtin_return_address(0) - (uintptr_t)&__sanitizer_cov_trace_pc;
  uint8_t &counter = counters[(block ^ block >> 14) % kCounters];
  counter += counter != 255;
}

// libFuzzer has no use for comparisons of floating-point numbers.
extern "C" void __sanitizer_cov_trace_cmpf(float, float) {}
extern "C" void __sanitizer_cov_trace_cmpd(double, double) {}
