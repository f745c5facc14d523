// Masked graph convolution on NVIDIA GPUs of sm_80 and later: the tensors' side. What is computed
// and graph_conv/ says how: operator.h says which kernels run, each kernel's file what it
// does.
//
// Activations are float16 or bfloat16, parameters of any type; sums are in float, their order is
// fixed, and nothing waits for the device.

#define USE_CUDA  // the stable ABI's functions of CUDA: this file is compiled without a CUDA torch

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <vector>

#include "arguments.h"
#include "cuda/operator.h"

namespace {

using namespace msclr;
using torch::headeronly::ScalarType;

void check(cudaError_t error) {
  STD_TORCH_CHECK(error == cudaSuccess, "graph_conv: ", cudaGetErrorString(error));
}

// Runs kernels on torch's current stream of a device, with memory from torch's allocator: freed on
// return, and by its rules not used by others before these kernels have run.
class Device {
 public:
  explicit Device(const Tensor& of) : guard_(of.get_device_index()), device_(of.device()) {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(of.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
    check(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount,
                                 of.get_device_index()));
  }

  template <class S>
  S* scratch(int64_t count) {
    scratch_.push_back(torch::stable::empty({count * static_cast<int64_t>(sizeof(S))},
                                            ScalarType::Byte, std::nullopt, device_));
    return static_cast<S*>(scratch_.back().mutable_data_ptr());
  }

  template <class Arguments>
  int blocks_at_once(void (*kernel)(Arguments), int threads, int shared_bytes) {
    allow(kernel, shared_bytes);
    int blocks = 0;
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, shared_bytes));
    STD_TORCH_CHECK(blocks > 0, "graph_conv: this GPU has too little shared memory for ",
                    shared_bytes, " bytes a block");
    return blocks * multiprocessors_;
  }

  template <class Arguments>
  void run(void (*kernel)(Arguments), int x, int y, int threads, int shared_bytes,
           const std::type_identity_t<Arguments>& arguments) {
    allow(kernel, shared_bytes);
    kernel<<<dim3(x, y), threads, shared_bytes, stream_>>>(arguments);
    check(cudaGetLastError());
  }

 private:
  template <class Arguments>
  static void allow(void (*kernel)(Arguments), int shared_bytes) {
    if (shared_bytes > 48 * 1024)
      check(
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
  }

  torch::stable::accelerator::DeviceGuard guard_;
  torch::stable::Device device_;
  cudaStream_t stream_;
  int multiprocessors_ = 0;
  std::vector<Tensor> scratch_;
};

gpu::Type type_of(const Tensor& tensor, const char* name) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return gpu::Type::kFloat;
    case ScalarType::Double:
      return gpu::Type::kDouble;
    case ScalarType::Half:
      return gpu::Type::kHalf;
    case ScalarType::BFloat16:
      return gpu::Type::kBFloat16;
    case ScalarType::Int:
      return gpu::Type::kInt32;
    case ScalarType::Long:
      return gpu::Type::kInt64;
    case ScalarType::Bool:
      return gpu::Type::kBool;
    default:
      STD_TORCH_CHECK(false, name, " must be float16, bfloat16, float32 or float64");
  }
}

gpu::StridedTensor strided(const Tensor& tensor, const char* name) {
  gpu::StridedTensor strided;
  strided.data = tensor.data_ptr();
  strided.type = type_of(tensor, name);
  const int64_t missing = 4 - tensor.dim();
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    strided.size[missing + d] = tensor.size(d);
    strided.stride[missing + d] = tensor.stride(d);
  }
  return strided;
}

gpu::StridedTensor strided(const OptionalTensor& tensor, const char* name) {
  return tensor ? strided(*tensor, name) : gpu::StridedTensor();
}

gpu::Problem problem(const Arguments& a) {
  const gpu::Problem p{.x = strided(a.x, "x"),
                       .weight = strided(a.weight, "weight"),
                       .bias = strided(a.bias, "bias"),
                       .adjacency = strided(a.adjacency, "adjacency"),
                       .layout_index = strided(a.layout_index, "layout_index"),
                       .joint_counts = strided(a.joint_counts, "joint_counts"),
                       .support = strided(a.support, "support")};
  const char* why = gpu::misfit(p);
  STD_TORCH_CHECK(!*why, "graph_conv: ", why);
  return p;
}

Tensor graph_conv(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                  const Tensor& adjacency, const OptionalTensor& layout_index,
                  const OptionalTensor& joint_counts, const OptionalTensor& support) {
  const Arguments given{x, weight, bias, adjacency, layout_index, joint_counts, support};
  const Tensor y = empty_activations(x, shape_of(given).c_out);
  Device device(x);
  gpu::forward(device, problem(given), strided(y, "y"));
  return y;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> graph_conv_backward(
    const Tensor& grad, const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
    const Tensor& adjacency, const OptionalTensor& layout_index, const OptionalTensor& joint_counts,
    const OptionalTensor& support, bool want_x, bool want_weight, bool want_bias,
    bool want_adjacency) {
  const Arguments given{x, weight, bias, adjacency, layout_index, joint_counts, support};
  const Gradients out({want_x, want_weight, want_bias, want_adjacency}, given);
  auto wanted = [](bool want, const Tensor& gradient, const char* name) {
    return want ? strided(gradient, name) : gpu::StridedTensor();
  };
  Device device(x);
  gpu::backward(device, problem(given), strided(grad, "grad"),
                {.x = wanted(want_x, out.x, "x"),
                 .weight = wanted(want_weight, out.weight, "weight"),
                 .bias = wanted(want_bias && bias, out.bias, "bias"),
                 .adjacency = wanted(want_adjacency, out.adjacency, "adjacency")});
  return {out.x, out.weight, out.bias, out.adjacency};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(msclr, CUDA, m) {
  m.impl("graph_conv", TORCH_BOX(&graph_conv));
  m.impl("graph_conv_backward", TORCH_BOX(&graph_conv_backward));
}
