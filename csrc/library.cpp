// Schemas of the operators. Their implementations stand in cpu/ and cuda/, one file an operator,
// and register themselves with STABLE_TORCH_LIBRARY_IMPL(msclr, CPU | CUDA, m); fake tensors,
// autograd and autocast are Python's part (kernels/<op>/op.py).
//
// Only LibTorch's stable ABI is used: one build serves every torch from 2.10 on.

#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(msclr, m) {
  // y[n,o,t,w] = sum_k sum_v (W_k x + b_k)[n,o,t,v] A[l(n),k,v,w]
  // x (N, C_in, T, V), weight (K*C_out, C_in), bias (K*C_out), adjacency (K, V, V) or, with
  // layout_index (N) and joint_counts (L), (L, K, V, V); support: bool, the adjacency's shape.
  m.def(
      "graph_conv(Tensor x, Tensor weight, Tensor? bias, Tensor adjacency, "
      "Tensor? layout_index=None, Tensor? joint_counts=None, Tensor? support=None) -> Tensor");

  // The gradients of x, weight, bias and adjacency; an empty tensor where one is not wanted.
  // The adjacency's gradient needs the bias: dA[k,v,w] = sum_n,o,t grad[..,w] (W_k x + b_k)[..,v].
  m.def(
      "graph_conv_backward(Tensor grad, Tensor x, Tensor weight, Tensor? bias, Tensor adjacency, "
      "Tensor? layout_index, Tensor? joint_counts, Tensor? support, bool want_x, "
      "bool want_weight, bool want_bias, bool want_adjacency) "
      "-> (Tensor, Tensor, Tensor, Tensor)");

  // queries (P, B, D), keys (B, D), bank (Q, D), temperature a scalar tensor, positives (B, R)
  // bank rows (-1: none); mined adds the top_k of every view to them.
  // -> loss (P, B), distribution (P, B), log_sum_exp (P, B), top_k (P, B, top_k) int64, and
  // mean (P, B, D) = sum_j softmax(s)_j k_j, which the gradient of the queries is made of.
  // distribution is empty without a teacher.
  m.def(
      "info_nce(Tensor queries, Tensor keys, Tensor? bank, Tensor temperature, "
      "int? teacher=None, int top_k=0, Tensor? positives=None, bool mined=False) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}
