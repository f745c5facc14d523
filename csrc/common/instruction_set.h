#pragma once
// Which instruction set the inner loops use: the best that this processor has, or a lesser one that
// was asked for (MSCLR_CPU_ISA, and tests, which so run every code path on any machine).

namespace msclr {

enum InstructionSet { kPortable, kAvx2, kAvx512 };

extern InstructionSet instruction_set;  // instruction_set.cpp

}  // namespace msclr
