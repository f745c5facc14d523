// The inner loops of the temporal convolution, for one instruction set: see simd.h, which is
// included here, for what must be defined before.

#include "../../common/simd.h"
#include "norm_loops.h"
#include "product_loops.h"
#include "spectrum_loops.h"

template <class S>
constexpr Kernels<S> kKernels = {
    .lanes = kLanes<S>,
    .panel = kPanel * kLanes<S>,
    .normalize = &normalize<S>,
    .combine = &combine<S>,
    .finish = &finish<S>,
    .finish_gradient = &finish_gradient<S>,
    .convolve = &convolve<S>,
    .product_add = &product_add<S>,
};

template <class S>
constexpr SpectralKernels<S> kSpectralKernels = {
    .panel = kWidePanel * kLanes<S>,
    .height = kHeight<kWidePanel>,
    .analyze = &analyze<S, kHalf>,
    .analyze_block = &analyze<S, kLength / 2>,
    .synthesize = &synthesize<S>,
    .analyze_taps = &analyze_taps<S>,
    .synthesize_taps = &synthesize_taps<S>,
    .multiply = &multiply_slots<S>,
};
