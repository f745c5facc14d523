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
  // -> loss (P, B), distribution (P, B), empty without a teacher, log_sum_exp (P, B), top_k
  // (P, B, top_k) int64, and what the gradient of the queries is made of: mean (P, B, D) =
  // sum_j softmax(s)_j k_j over key and bank, and positive (B, D), the mean of the positive rows.
  m.def(
      "info_nce(Tensor queries, Tensor keys, Tensor? bank, Tensor temperature, "
      "int? teacher=None, int top_k=0, Tensor? positives=None, bool mined=False) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");

  // The gradients of queries, keys, bank and temperature; an empty tensor where one is not wanted.
  // mined: the forward's top_k where that was asked to mine. bank, positives and mined matter only
  // where keys or bank want a gradient.
  m.def(
      "info_nce_backward(Tensor grad_loss, Tensor grad_distribution, Tensor grad_log_sum_exp, "
      "Tensor queries, Tensor keys, Tensor? bank, Tensor temperature, int? teacher, "
      "Tensor? positives, Tensor? mined, Tensor log_sum_exp, Tensor mean, Tensor positive, "
      "bool want_queries, bool want_keys, bool want_bank, bool want_temperature) "
      "-> (Tensor, Tensor, Tensor, Tensor)");

  // views (P, B, D), temperature a scalar tensor, pairs: anchor view, key view, anchor view, ..;
  // candidates (P, N, D), views if None, of which views' clips are those from `first` on; bank
  // (Q, D). all_views: the other clips' views are all negatives, not the key's view alone.
  // -> loss, and for the backward, (P, P, B) each, of anchor view, key view and clip: the
  // log-sum-exp of the negatives' logits, and the positive's logit.
  m.def(
      "multi_view_info_nce(Tensor views, Tensor temperature, int[] pairs, Tensor? candidates, "
      "int first, Tensor? bank, bool all_views) -> (Tensor, Tensor, Tensor)");

  // The gradients of views, temperature, candidates and bank; an empty tensor where one is not
  // wanted. Without candidates that of views has both its parts, as anchors and as candidates.
  m.def(
      "multi_view_info_nce_backward(Tensor grad, Tensor views, Tensor temperature, int[] pairs, "
      "Tensor? candidates, int first, Tensor? bank, bool all_views, Tensor negatives, "
      "Tensor positives, bool want_views, bool want_temperature, bool want_candidates, "
      "bool want_bank) -> (Tensor, Tensor, Tensor, Tensor)");

  // clips (N, M, T, V, 3); index, numbers, epochs (B); flip, parents (V). view: none, normal,
  // extreme; stream: joint, motion, bone, each counted from 0. -> (B, M, T, V, 3) of dtype.
  m.def(
      "augment(Tensor clips, Tensor index, Tensor numbers, Tensor epochs, int seed, int purpose, "
      "int view, Tensor? flip, int stream, Tensor? parents, bool planar, ScalarType dtype) "
      "-> Tensor");
}
