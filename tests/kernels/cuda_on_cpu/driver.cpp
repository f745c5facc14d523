// What the tests call through ctypes: the operator on the CPU, and kernels with known faults, to
// see that the machine finds them.

#include "../../../csrc/graph_conv/cuda/operator.h"
#include "machine.h"

using namespace msclr::gpu;
using cuda_on_cpu::Device;
using cuda_on_cpu::Guarded;
using cuda_on_cpu::Order;

namespace {

struct FaultArguments {
  int kind;
  float *in, *out;  // 32 numbers each
};

// Reverses 32 numbers through shared memory, or fails to.
__global__ void reverse(const FaultArguments a) {
  float* shared = reinterpret_cast<float*>(dynamic_shared());
  const int i = threadIdx.x;
  if (a.kind == 6) {
    if (i < 8) cp_async16(shared + 4 * i, a.in + 4 * i, true);
    cp_async_commit();
    cp_async_wait<1>();  // one too many left
    __syncthreads();
    a.out[i] = shared[31 - i];
    cp_async_wait<0>();
    return;
  }
  shared[i] = a.in[i + (a.kind == 1 ? 1 : 0)];
  if (a.kind == 2 && i < 16) return;
  if (a.kind != 3) __syncthreads();
  if (a.kind == 4 && i < 16) ballot(true);
  if (a.kind == 5) load16(shared + 1);
  const float other = shared[31 - i];
  if (a.kind == 7) shared[i] = 0;  // and nobody waits for those who are still to read it
  a.out[i] = a.kind == 8 ? shared[32 + i] : other;
}

thread_local std::string answer;

const char* answer_of(const Device& device, int* launches) {
  if (launches) *launches = device.launches();
  answer = device.problem();
  return answer.c_str();
}

}  // namespace

extern "C" {

void* guarded_new(int64_t bytes) { return new Guarded(bytes); }
void* guarded_data(const void* memory) { return static_cast<const Guarded*>(memory)->data(); }
bool guarded_intact(const void* memory) { return static_cast<const Guarded*>(memory)->intact(); }
void guarded_delete(void* memory) { delete static_cast<Guarded*>(memory); }

const char* graph_conv_forward(const Problem* problem, const StridedTensor* y, int order,
                               int blocks, int* launches) {
  if (answer = misfit(*problem); !answer.empty()) return answer.c_str();
  Device device(static_cast<Order>(order), blocks);
  forward(device, *problem, *y);
  return answer_of(device, launches);
}

const char* graph_conv_backward(const Problem* problem, const StridedTensor* grad,
                                const GradientTensors* gradients, int order, int blocks) {
  if (answer = misfit(*problem); !answer.empty()) return answer.c_str();
  Device device(static_cast<Order>(order), blocks);
  backward(device, *problem, *grad, *gradients);
  return answer_of(device, nullptr);
}

const char* run_faulty(int kind, float* in, float* out, int order) {
  Device device(static_cast<Order>(order), 1);
  device.run(reverse, 1, 1, 32, 128, {kind, in, out});
  return answer_of(device, nullptr);
}
}
