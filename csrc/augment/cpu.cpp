// Augmented batches on the CPU: a view of a clip is gathered and augmented body by body in cache,
// in one pass over memory: crop and flip copy frames, one loop does the matrix and the noise of 16
// joints at a time (8 with AVX2) in registers, one the blur, one the stream. What is drawn is a
// function of (seed, epoch, clip, purpose), so clips are independent of each other.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "cpu/clip.h"

namespace {

using namespace msclr;
using namespace msclr::augment_cpu;
using OptionalTensor = std::optional<Tensor>;

// Python has checked all this and says more; this keeps calls past it within their memory.
void check(bool holds, const char* what) { STD_TORCH_CHECK(holds, what); }

bool is_stored(ScalarType type) {
  return type == ScalarType::Float || type == ScalarType::Half || type == ScalarType::BFloat16;
}

void check_within(const int64_t* values, int64_t count, int64_t below, const char* name) {
  for (int64_t i = 0; i < count; ++i)
    STD_TORCH_CHECK(0 <= values[i] && values[i] < below, name, " must lie in 0..", below - 1,
                    ", got ", values[i]);
}

std::vector<int64_t> table(const OptionalTensor& joints, int64_t count, bool wanted,
                           const char* name) {
  if (!wanted) return {};
  STD_TORCH_CHECK(joints && joints->dim() == 1 && joints->size(0) == count &&
                      joints->scalar_type() == ScalarType::Long,
                  name, " must be int64 (V,)");
  const std::vector<int64_t> out = integers(*joints);
  check_within(out.data(), count, count, name);
  return out;
}

Tensor vector_of(const Tensor& values, int64_t count, const char* name) {
  STD_TORCH_CHECK(
      values.dim() == 1 && values.size(0) == count && values.scalar_type() == ScalarType::Long,
      name, " must be int64 (B,)");
  return torch::stable::contiguous(values);
}

Tensor augment(const Tensor& clips, const Tensor& index, const Tensor& numbers,
               const Tensor& epochs, int64_t seed, int64_t purpose, int64_t view,
               const OptionalTensor& flip, int64_t stream, const OptionalTensor& parents,
               bool planar, ScalarType dtype, std::vector<double> amounts) {
  check(clips.dim() == 5 && clips.size(4) == 3 && clips.is_contiguous(),
        "clips must be (N, M, T, V, 3), contiguous");
  check(is_stored(clips.scalar_type()), "clips must be float32, float16 or bfloat16");
  check(is_stored(dtype), "dtype must be float32, float16 or bfloat16");
  check(kNone <= view && view <= kExtreme, "view must be 0, 1 or 2");
  check(kJoint <= stream && stream <= kBone, "stream must be 0, 1 or 2");
  check(amounts.size() == kAmounts, "amounts must be 7 numbers");
  check(0 <= amounts[0] && amounts[0] <= double(clips.size(2)), "pad must lie in 0..T");
  check(index.dim() == 1, "index must be (B,)");
  const int64_t count = index.size(0), joints = clips.size(3);
  const Tensor rows = vector_of(index, count, "index");
  const Tensor clip_numbers = vector_of(numbers, count, "numbers");
  const Tensor passes = vector_of(epochs, count, "epochs");
  auto values = [](const Tensor& t) { return static_cast<const int64_t*>(t.const_data_ptr()); };
  check_within(values(rows), count, clips.size(0), "index");
  const Tensor out = torch::stable::new_empty(
      clips, {count, clips.size(1), clips.size(2), joints, int64_t{3}}, dtype);
  if (out.numel() == 0) return out;
  const Batch batch = {
      .clips = static_cast<const char*>(clips.const_data_ptr()),
      .out = static_cast<char*>(out.mutable_data_ptr()),
      .stored = clips.scalar_type(),
      .wanted = dtype,
      .bodies = clips.size(1),
      .frames = clips.size(2),
      .joints = joints,
      .index = values(rows),
      .numbers = values(clip_numbers),
      .epochs = values(passes),
      .seed = static_cast<uint64_t>(seed),
      .purpose = static_cast<uint32_t>(purpose),
      .view = static_cast<View>(view),
      .stream = static_cast<StreamKind>(stream),
      .flip = table(flip, joints, view == kExtreme, "flip"),
      .parents = table(parents, joints, stream == kBone, "parents"),
      .planar = planar,
      .amounts = {amounts[0], amounts[1], amounts[2], amounts[3], amounts[4], amounts[5],
                  amounts[6]},
  };
  constexpr int64_t kGrain = 4;  // clips, some 10 microseconds: worth a thread
  torch::stable::parallel_for(0, count, kGrain, [&](int64_t begin, int64_t end) {
    ClipMaker maker(batch);
    for (int64_t b = begin; b < end; ++b) maker.make(b);
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(msclr, CPU, m) { m.impl("augment", TORCH_BOX(&augment)); }
