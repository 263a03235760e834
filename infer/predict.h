// From an image that a network understands to class indices: the whole image at once, or a window that slides over it. What happens before and
// after (reading, conforming, normalising, writing on the input's grid) is infer/segment.h.
#pragma once
#include <functional>

#include "layers/graph.h"

namespace vg {

struct PredictOptions {
  std::int64_t window[3] = {0, 0, 0};  // D, H, W; 0: the whole extent. Rounded up to multiples of `divisor`
  std::int64_t divisor[3] = {1, 1, 1};  // besides what the network itself divides (Graph::divisor)
  double overlap = 0.5;                // of neighbouring windows, as a part of the window
  bool gaussian = true;                // windows weigh less towards their border (sigma = window / 8, as nnU-Net), else equally
  bool confidence = false, entropy = false;
  int candidates = 1;                  // so many classes of each voxel, the likeliest first; at most all classes
  DType precision = DType::f32;        // of activations on a GPU (and sim): f32, bf16, f16
  std::uint64_t max_bytes = 0;         // beside the image; 0: no limit. Slower plans that need less are taken where the fast one needs more (planes.h)
  bool skip_background = true;         // where the network sees one value only, its answer is not computed again and again (planes.h)
  bool head_only = false;              // labels only where the image differs from its first voxel, 0 elsewhere. For chains of convolutions
  std::function<void(double done)> progress;  // 0..1, from the calling thread; may throw to stop
};

struct Prediction {
  Tensor labels;      // (N, D, H, W, candidates) class index, u8 up to 256 classes, else i32; on the cpu
  Tensor confidence;  // (N, D, H, W, candidates) f32 softmax probability of those classes, if asked for
  Tensor entropy;     // (N, D, H, W, 1) f32, of all classes' probabilities, in nats: 0 (certain) .. log C, if asked for
};

// image: (N, D, H, W, in_channels) f32 on the cpu. Extents that the network does not divide are padded with zeros on both sides. Small samples go
// through the network several at a time.
// Logits of overlapping windows are averaged by weight before the decision; memory is one window's depth of class planes, not the volume. All of that happens
// on the context's device (on the host, if its memory is too small for the class planes); the image goes up once, labels come down.
// ctx.tape must be null. Throws invalid_argument where the network's scores are not on its input's grid.
Prediction predict(Context& ctx, Network& net, const Tensor& image, const PredictOptions& options = {});

// What predict() will hold at its peak, besides the image: the network on one window (or the whole image), class scores, results. More than
// max_bytes: nothing that we know needs less.
std::uint64_t predict_bytes(const Graph& graph, const Shape& image, const PredictOptions& options, const ConvAlgorithm& convolution = {});

// The layers with what they cost, as text; and how they would be run.
std::string predict_table(const Graph& graph, const Shape& image, const PredictOptions& options, const ConvAlgorithm& convolution = {});

// Starts of windows along one axis: evenly spread, no further apart than window (1 - overlap) before they are rounded to whole voxels, the first at
// 0, the last at the end (as nnU-Net's).
std::vector<std::int64_t> window_starts(std::int64_t extent, std::int64_t window, double overlap);

}  // namespace vg
