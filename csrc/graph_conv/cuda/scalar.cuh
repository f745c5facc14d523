#pragma once
// The same three operators for float and double, which are multiplied in full precision and so
// without tensor cores. Neighbours are gathered from global memory, where the first-level cache
// serves all but the first read, so that any strides take the same path.

#include "neighbours.cuh"

namespace msclr::gpu {

template <class S>
struct ScalarArguments {
  Batch batch;
  Graph<S> graph;
  Activations x, y;   // y is read by the gradients: it is the incoming one
  View weight, bias;  // bias may be absent
  int partitions;
  bool transpose;  // the product's input channels are the weight's output channels
};

template <class S>
struct ScalarWeightGradientArguments {
  ScalarArguments<S> base;
  int c_in_chunks;
  S *weight, *bias;  // (shares, K, C_out, C_in), (shares, K, C_out); either may be null
};

template <class S>
struct ScalarAdjacencyGradientArguments {
  ScalarArguments<S> base;
  S* adjacency;  // (shares, L, K, V, V)
};

namespace scalar {

constexpr int kThreads = 256, kChunk = 16, kPitch = kTileRows + 4;
constexpr int kColumns = 64, kAdjacencyColumns = 32;
constexpr int kWeightThreads = 128, kWeightRows = 32, kWeightChannels = 64;
constexpr int kAdjacencyPitch = kAdjacencyColumns + 1;

template <class S>
constexpr int kConvolveBytes = kChunk * (kPitch + kColumns) * sizeof(S);
template <class S>
constexpr int kWeightBytes = 2 * kWeightRows * kWeightChannels * sizeof(S);
template <class S>
constexpr int kAdjacencyBytes =
    (kChunk * (kPitch + kAdjacencyColumns) + 2 * kTileRows * kAdjacencyPitch) * sizeof(S);

template <class S>
struct alignas(16) Four {
  S v[4];
};

// 128 rows times kColumns columns of a product: a thread owns 4 columns of 4 or 8 rows.
template <class S, int kColumns>
class Product {
 public:
  static constexpr int kRowThreads = kThreads * 4 / kColumns;
  static constexpr int kRows = kTileRows / kRowThreads;
  S sums[kRows][4] = {};

  __device__ static int row(int i) {
    return i / 4 * kRowThreads * 4 + threadIdx.x / (kColumns / 4) * 4 + i % 4;
  }
  __device__ static int column(int j) { return threadIdx.x % (kColumns / 4) * 4 + j; }

  // Adds left(row, c) right(column, c) over c < depth.
  template <class Left, class Right>
  __device__ void add(int depth, S* shared, const Activations& x, const Left& left,
                      const Right& right) {
    S *rows = shared, *columns = shared + kChunk * kPitch;
    for (int first = 0; first < depth; first += kChunk) {
      __syncthreads();
#pragma unroll 1
      for (int i = threadIdx.x; i < kTileRows * kChunk; i += kThreads) {
        const auto [row, c] = position(x, i, kTileRows, kChunk);
        rows[c * kPitch + row] = first + c < depth ? left(row, first + c) : S(0);
      }
#pragma unroll 1
      for (int i = threadIdx.x; i < kColumns * kChunk; i += kThreads) {
        const int column = i / kChunk, c = i % kChunk;
        columns[c * kColumns + column] = first + c < depth ? right(column, first + c) : S(0);
      }
      __syncthreads();
#pragma unroll 4
      for (int c = 0; c < kChunk; ++c) {
        const auto& b = *reinterpret_cast<const Four<S>*>(columns + c * kColumns + column(0));
#pragma unroll
        for (int i = 0; i < kRows; i += 4) {
          const auto& a = *reinterpret_cast<const Four<S>*>(rows + c * kPitch + row(i));
#pragma unroll
          for (int e = 0; e < 4; ++e)
#pragma unroll
            for (int j = 0; j < 4; ++j) sums[i + e][j] += a.v[e] * b.v[j];
        }
      }
    }
  }
};

template <class S>
__device__ const S* tile_channel(const Activations& x, const Tile& tile, int frame, int c) {
  return tile_start<const S>(x, tile) + frame * x.frame + c * x.channel;
}

// Row and channel of the k-th aggregate; 0 past the last row.
template <class S>
__device__ S aggregate(const ScalarArguments<S>& a, const Activations& x, const Tile& tile, int k,
                       int row, int c) {
  if (row >= tile.rows()) return 0;
  const int frame = tile.frame_of(row), joint = row - frame * tile.joints;
  const int lists = (tile.layout * a.partitions + k) * a.batch.joints;
  return gpu::aggregate(a.graph, lists, a.batch.joints, joint, tile_channel<S>(x, tile, frame, c),
                        x.joint);
}

template <class S>
__device__ S element(const Activations& x, const Tile& tile, int row, int c) {
  if (row >= tile.rows() || c >= x.channels) return 0;
  const int frame = tile.frame_of(row), joint = row - frame * tile.joints;
  return tile_channel<S>(x, tile, frame, c)[joint * x.joint];
}

// W_k[column, c] of a product of `depth` input channels; 0 past the last column.
template <class S>
__device__ S weight_of(const ScalarArguments<S>& a, int k, int column, int c, int depth,
                       int columns) {
  if (column >= columns) return 0;
  const int64_t row = a.transpose ? k * depth + c : k * columns + column;
  return read<S>(a.weight,
                 row * a.weight.stride[2] + (a.transpose ? column : c) * a.weight.stride[3]);
}

template <class S>
__device__ void biases_of(const ScalarArguments<S>& a, int k, int first, int columns, S (&b)[4]) {
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    b[j] = 0;
    if (a.bias.data && first + j < columns)
      b[j] = read<S>(a.bias, (static_cast<int64_t>(k) * columns + first + j) * a.bias.stride[3]);
  }
}

}  // namespace scalar

template <class S>
__global__ void __launch_bounds__(scalar::kThreads, 2) convolve_scalar(const ScalarArguments<S> a) {
  using namespace scalar;
  S* shared = reinterpret_cast<S*>(dynamic_shared());
  const int first = blockIdx.y * kColumns, c_in = a.x.channels, c_out = a.y.channels;
  Tiles tiles;
  Tile tile;
  while (tiles.next(a.batch, tile)) {
    Product<S, kColumns> product;
    for (int k = 0; k < a.partitions; ++k)
      product.add(
          c_in, shared, a.x, [&](int row, int c) { return aggregate(a, a.x, tile, k, row, c); },
          [&](int column, int c) { return weight_of(a, k, first + column, c, c_in, c_out); });
    for (int k = 0; a.bias.data && k < a.partitions; ++k) {
      const int lists = (tile.layout * a.partitions + k) * a.batch.joints;
      S bias[4];
      biases_of(a, k, first + product.column(0), c_out, bias);
#pragma unroll
      for (int i = 0; i < product.kRows; ++i) {
        const int row = product.row(i);
        if (row >= tile.rows()) continue;
        const S factor = a.graph.sums[lists + row - tile.frame_of(row) * tile.joints];
#pragma unroll
        for (int j = 0; j < 4; ++j) product.sums[i][j] += factor * bias[j];
      }
    }
#pragma unroll
    for (int i = 0; i < product.kRows; ++i) {
      const int row = product.row(i), frame = tile.frame_of(row);
      if (row >= tile.rows()) continue;
      S* to =
          tile_start<S>(a.y, tile) + frame * a.y.frame + (row - frame * tile.joints) * a.y.joint;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int column = first + product.column(j);
        if (column < c_out) to[column * a.y.channel] = product.sums[i][j];
      }
    }
    clear_masked<S>(a.batch, a.y, tile, first, min(kColumns, c_out - first), kThreads);
  }
}

// A block owns a partition, 64 input and 64 output channels, and a share of the tiles; a thread 8
// input and 4 output channels.
template <class S>
__global__ void __launch_bounds__(scalar::kWeightThreads, 4)
    weight_gradient_scalar(const ScalarWeightGradientArguments<S> args) {
  using namespace scalar;
  const ScalarArguments<S>& a = args.base;
  const int c_in = a.x.channels, c_out = a.y.channels;
  const int c_out_chunks = (c_out + kWeightChannels - 1) / kWeightChannels;
  const int first_in = blockIdx.y % args.c_in_chunks * kWeightChannels;
  const int first_out = blockIdx.y / args.c_in_chunks % c_out_chunks * kWeightChannels;
  const int k = blockIdx.y / args.c_in_chunks / c_out_chunks;
  const int own_in = threadIdx.x / 16 * 8, own_out = threadIdx.x % 16 * 4;
  S* z = reinterpret_cast<S*>(dynamic_shared());
  S* g = z + kWeightRows * kWeightChannels;
  S sums[8][4] = {}, bias_sum = 0;

  Tiles tiles;
  Tile tile;
  while (tiles.next(a.batch, tile))
    for (int first = 0; first < tile.rows(); first += kWeightRows) {
      __syncthreads();
#pragma unroll 1
      for (int i = threadIdx.x; i < kWeightRows * kWeightChannels; i += kWeightThreads) {
        const auto [row, c] = position(a.x, i, kWeightRows, kWeightChannels);
        z[row * kWeightChannels + c] =
            first_in + c < c_in ? aggregate(a, a.x, tile, k, first + row, first_in + c) : S(0);
      }
#pragma unroll 1
      for (int i = threadIdx.x; i < kWeightRows * kWeightChannels; i += kWeightThreads) {
        const auto [row, c] = position(a.y, i, kWeightRows, kWeightChannels);
        g[row * kWeightChannels + c] = element<S>(a.y, tile, first + row, first_out + c);
      }
      __syncthreads();
#pragma unroll 2
      for (int row = 0; row < kWeightRows; ++row) {
        const S *zs = z + row * kWeightChannels + own_in, *gs = g + row * kWeightChannels;
        const auto& b = *reinterpret_cast<const Four<S>*>(gs + own_out);
#pragma unroll
        for (int i = 0; i < 8; i += 4) {
          const auto& four = *reinterpret_cast<const Four<S>*>(zs + i);
#pragma unroll
          for (int e = 0; e < 4; ++e)
#pragma unroll
            for (int j = 0; j < 4; ++j) sums[i + e][j] += four.v[e] * b.v[j];
        }
      }
      if (args.bias && first_in == 0 && threadIdx.x < kWeightChannels)
        for (int i = 0; i < kWeightRows && first + i < tile.rows(); ++i) {
          const int joint = first + i - tile.frame_of(first + i) * tile.joints;
          const int lists = (tile.layout * a.partitions + k) * a.batch.joints;
          bias_sum += a.graph.sums[lists + joint] * g[i * kWeightChannels + threadIdx.x];
        }
    }

  const int64_t matrix = static_cast<int64_t>(blockIdx.x) * a.partitions + k;
  if (args.weight)
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int c = first_in + own_in + i, o = first_out + own_out + j;
        if (c < c_in && o < c_out) args.weight[(matrix * c_out + o) * c_in + c] = sums[i][j];
      }
  const int o = first_out + threadIdx.x;
  if (args.bias && first_in == 0 && threadIdx.x < kWeightChannels && o < c_out)
    args.bias[matrix * c_out + o] = bias_sum;
}

// A block owns a layout, a partition and a share of the tiles; a thread every 16th v and w.
template <class S>
__global__ void __launch_bounds__(scalar::kThreads)
    adjacency_gradient_scalar(const ScalarAdjacencyGradientArguments<S> args) {
  using namespace scalar;
  const ScalarArguments<S>& a = args.base;
  const int layout = blockIdx.y / a.partitions, k = blockIdx.y % a.partitions;
  const int c_in = a.x.channels, c_out = a.y.channels;
  const int joints = joints_of(a.batch, layout), all = a.batch.joints;
  const int own_v = threadIdx.x / 16, own_w = threadIdx.x % 16;
  S* shared = reinterpret_cast<S*>(dynamic_shared());
  S* p = shared + kChunk * (kPitch + kAdjacencyColumns);  // W_k x + b_k
  S* g = p + kTileRows * kAdjacencyPitch;
  S sums[8][8] = {};

  Tiles tiles;
  Tile tile;
  while (tiles.next(a.batch, tile, layout))
    for (int first = 0; first < c_out; first += kAdjacencyColumns) {
      Product<S, kAdjacencyColumns> product;
      product.add(
          c_in, shared, a.x, [&](int row, int c) { return element<S>(a.x, tile, row, c); },
          [&](int column, int c) { return weight_of(a, k, first + column, c, c_in, c_out); });
      __syncthreads();  // with no input channels, the product had no barrier
      S bias[4];
      biases_of(a, k, first + product.column(0), c_out, bias);
#pragma unroll
      for (int i = 0; i < product.kRows; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
          p[product.row(i) * kAdjacencyPitch + product.column(j)] = product.sums[i][j] + bias[j];
      for (int i = threadIdx.x; i < kTileRows * kAdjacencyColumns; i += kThreads) {
        const auto [row, c] = position(a.y, i, kTileRows, kAdjacencyColumns);
        g[row * kAdjacencyPitch + c] = element<S>(a.y, tile, row, first + c);
      }
      __syncthreads();
      for (int frame = 0; frame < tile.frames; ++frame)
        for (int o = 0; o < kAdjacencyColumns; ++o) {
          S ps[8], gs[8];
#pragma unroll
          for (int i = 0; i < 8; ++i) {
            const int v = own_v + 16 * i, w = own_w + 16 * i, base = frame * joints;
            ps[i] = v < joints ? p[(base + v) * kAdjacencyPitch + o] : S(0);
            gs[i] = w < joints ? g[(base + w) * kAdjacencyPitch + o] : S(0);
          }
#pragma unroll
          for (int i = 0; i < 8; ++i)
#pragma unroll
            for (int j = 0; j < 8; ++j)
              if (16 * i < joints && 16 * j < joints) sums[i][j] += ps[i] * gs[j];
        }
    }

  S* out = args.adjacency + (static_cast<int64_t>(blockIdx.x) * gridDim.y + blockIdx.y) * all * all;
#pragma unroll
  for (int i = 0; i < 8; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int v = own_v + 16 * i, w = own_w + 16 * j;
      if (v < all && w < all) out[v * all + w] = v < joints && w < joints ? sums[i][j] : S(0);
    }
}

}  // namespace msclr::gpu
