#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "../../common/rows.h"
#include "kernels.h"

namespace msclr::multi_view_cpu {

using OptionalTensor = std::optional<Tensor>;

// The weights of the ordered pairs of views in the mean, and who meets whom for them. The bank
// counts as one more view here, number `views`.
class Pairs {
 public:
  Pairs(int64_t views, const std::vector<int64_t>& anchors_and_keys, bool all_views)
      : views_(views), all_views_(all_views), weight_(views * views), anchor_(views) {
    const auto& given = anchors_and_keys;
    STD_TORCH_CHECK(!given.empty() && given.size() % 2 == 0, "pairs must hold anchor, key, ..");
    for (size_t i = 0; i < given.size(); i += 2) {
      for (const int64_t view : {given[i], given[i + 1]})
        STD_TORCH_CHECK(0 <= view && view < views, "pairs must hold views 0..", views - 1, ", got ",
                        view);
      STD_TORCH_CHECK(given[i] != given[i + 1], "pairs must hold two unlike views");
      weight_[given[i] * views + given[i + 1]] += 2.0 / given.size();
      anchor_[given[i]] = true;
    }
  }

  int64_t views() const { return views_; }
  double weight(int64_t anchor, int64_t key) const { return weight_[anchor * views_ + key]; }

  // Whether view `other` holds negatives for anchors of a view.
  bool meet(int64_t view, int64_t other) const {
    return anchor_[view] && (all_views_ || other == views_ || weight(view, other) > 0);
  }

  // Negatives of one slot go with the same keys: a view's with that key alone, others with every.
  int64_t slots() const { return views_ + 1; }
  int64_t slot(int64_t other) const { return all_views_ ? views_ : other; }

 private:
  int64_t views_;
  bool all_views_;
  std::vector<double> weight_;
  std::vector<bool> anchor_;
};

// The rows of a tensor are cut into nodes, of one view each and kBlock rows at the most.
enum Part { kAnchors, kCandidates, kBank };

struct Node {
  Part part;
  int64_t view, first, count;
  int64_t row;  // the first one's number in the tensor
};

// What the forward pass keeps for the backward one, (P, P, B) each, of anchor view, key view and
// clip. The excess is the negatives' log-sum-exp less the positive's logit; log_sum that of
// (s - shift) / T over the similarities s of negatives and positive, the shift being one near the
// largest: apart, the two hold what the log-sum-exp of large logits would lose.
struct Kept {
  Tensor excesses, shifts, log_sums;
};

// Anchors (P, B, D) and candidates (P, N, D), which are the same nodes where `shared`, and the bank
// (Q, D). Clip b of the anchors is clip own + b of the candidates.
struct Problem {
  Pairs pairs;
  int64_t batch, dim, own;
  bool shared;
  std::vector<Tensor> tensors;  // of each Part
  std::vector<Node> nodes;      // anchors come first

  Problem(const Tensor& views, const std::vector<int64_t>& anchors_and_keys,
          const OptionalTensor& candidates, int64_t first, const OptionalTensor& bank,
          bool all_views)
      : pairs(views.size(0), anchors_and_keys, all_views),
        batch(views.size(1)),
        dim(views.size(2)),
        own(first),
        shared(!candidates),
        tensors{views, candidates ? *candidates : views,
                bank ? *bank : torch::stable::new_empty(views, {0, dim})} {
    const Tensor &of_clips = tensors[kCandidates], &of_bank = tensors[kBank];
    STD_TORCH_CHECK(batch > 0, "views must hold at least one clip");
    STD_TORCH_CHECK(
        of_clips.dim() == 3 && of_clips.size(0) == pairs.views() && of_clips.size(2) == dim,
        "candidates must be (P, N, D) as views");
    STD_TORCH_CHECK(0 <= own && own + batch <= of_clips.size(1) && (!shared || own == 0),
                    "first must be where the clips of views begin in candidates, got ", own);
    STD_TORCH_CHECK(of_bank.dim() == 2 && of_bank.size(1) == dim, "bank must be (Q, ", dim, ")");
    // In a small batch so small that several threads find work.
    block_ = pairs.views() * batch < 16 * kBlock ? kBlock / 2 : kBlock;
    for (int64_t view = 0; view < pairs.views(); ++view) cut(kAnchors, view, view * batch, batch);
    for (int64_t view = 0; view < pairs.views() && !shared; ++view)
      cut(kCandidates, view, view * of_clips.size(1), of_clips.size(1));
    cut(kBank, pairs.views(), 0, of_bank.size(0));
  }

  // Whether node b holds candidates for anchors of node a, or, where shared, the other way round.
  bool meet(int64_t a, int64_t b) const {
    const Node &row = nodes[a], &column = nodes[b];
    if (row.part != kAnchors) return false;
    if (column.part == kAnchors)
      return shared && (pairs.meet(row.view, column.view) || pairs.meet(column.view, row.view));
    return pairs.meet(row.view, column.view);
  }

  // Whether the tile of two nodes is also, transposed, that of anchors of b and candidates of a.
  bool both_ways(int64_t a, int64_t b) const { return a != b && nodes[b].part == kAnchors; }

  // f(r, c) for the places of a tile where an anchor meets a view of its own clip.
  template <class F>
  void each_own(int64_t a, int64_t b, const F& f) const {
    const Node &row = nodes[a], &column = nodes[b];
    if (column.part == kBank) return;
    const int64_t shift = own + row.first - column.first;
    const int64_t last = std::min(row.count, column.count - shift);
    for (int64_t r = std::max<int64_t>(0, -shift); r < last; ++r) f(r, r + shift);
  }

 private:
  void cut(Part part, int64_t view, int64_t row, int64_t count) {
    for (int64_t i = 0; i < count; i += block_)
      nodes.push_back({part, view, i, std::min(block_, count - i), row + i});
  }

  int64_t block_;
};

}  // namespace msclr::multi_view_cpu
