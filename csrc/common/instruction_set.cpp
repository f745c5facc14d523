#include "instruction_set.h"

#include <cstring>

namespace msclr {
namespace {

constexpr const char* kNames[] = {"portable", "avx2", "avx512"};

InstructionSet best() {
#ifdef __x86_64__
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    return kAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kAvx2;
#endif
  return kPortable;
}

}  // namespace

InstructionSet instruction_set = best();

}  // namespace msclr

// The name of the instruction set in use; `wanted`, where not null and not beyond this processor,
// comes into use before. Called from kernels/_backend.py.
extern "C" __attribute__((visibility("default"))) const char* msclr_instruction_set(
    const char* wanted) {
  using namespace msclr;
  for (int set = kPortable; wanted && set <= best(); ++set)
    if (std::strcmp(wanted, kNames[set]) == 0) instruction_set = static_cast<InstructionSet>(set);
  return kNames[instruction_set];
}
