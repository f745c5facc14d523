#pragma once
// The arguments of the temporal convolution, checked, and their sizes.

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <iterator>
#include <vector>

#include "../common/elements.h"

namespace msclr::temporal_conv_cpu {

constexpr int64_t kTaps = 9, kPadding = 4;

// Samples of the same number of frames and joints, and where their rows begin in x and in y.
struct Segment {
  int64_t samples, frames, joints, out_frames, first_row, first_out_row;
};

struct Shape {
  int64_t c_in, c_out, stride;
  int64_t rows = 0, out_rows = 0;
  std::vector<Segment> segments;

  Shape(int64_t channels_in, int64_t channels_out, const std::vector<int64_t>& sizes, int64_t by)
      : c_in(channels_in), c_out(channels_out), stride(by) {
    STD_TORCH_CHECK(stride == 1 || stride == 2, "stride must be 1 or 2, got ", stride);
    STD_TORCH_CHECK(sizes.size() % 3 == 0, "segments must be N, T, V of each, got ", sizes.size(),
                    " numbers");
    for (size_t i = 0; i < sizes.size(); i += 3) add(sizes[i], sizes[i + 1], sizes[i + 2]);
  }

 private:
  void add(int64_t samples, int64_t frames, int64_t joints) {
    STD_TORCH_CHECK(samples >= 0 && frames >= 0 && joints >= 0,
                    "segments must not be negative, got ", samples, ", ", frames, ", ", joints);
    const int64_t out_frames = frames ? (frames - 1) / stride + 1 : 0;
    segments.push_back({samples, frames, joints, out_frames, rows, out_rows});
    rows += samples * frames * joints;
    out_rows += samples * out_frames * joints;
  }
};

inline void check(bool holds, const char* name, const Tensor& tensor, const char* wanted) {
  STD_TORCH_CHECK(holds, name, " must be ", wanted, ", got ", tensor.dim(), " dimensions and ",
                  tensor.numel(), " elements");
}

inline void check_vector(const char* name, const Tensor& tensor, int64_t channels) {
  check(tensor.dim() == 1 && tensor.size(0) == channels, name, tensor, "one number a channel");
}

inline void check_rows(const char* name, const Tensor& tensor, int64_t rows, int64_t channels) {
  check(tensor.dim() == 2 && tensor.size(0) == rows && tensor.size(1) == channels, name, tensor,
        "as many rows as the segments have, of as many channels as the weight has");
}

inline void check_weight(const Tensor& weight) {
  check(weight.dim() == 3 && weight.size(2) == kTaps, "weight", weight, "(C_out, C_in, 9)");
}

}  // namespace msclr::temporal_conv_cpu
