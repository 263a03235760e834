// A scan in, labels out, on the scan's own grid: the recipe's steps forward, the network, the same steps back.
#pragma once
#include <functional>
#include <optional>

#include "infer/predict.h"
#include "infer/recipe.h"
#include "layers/model_file.h"
#include "nifti/lut.h"
#include "nifti/volume.h"

namespace vg {

// A model file ready to run.
struct Segmenter {
  Segmenter(const std::string& path, Device device);  // throws bad_file, io, no_device
  std::string path;
  Model model;  // without its weights, which live in the network
  Recipe recipe;
  Network net;

  Lut lut() const;  // the classes' ids, names and colours
  std::int32_t id_of(std::int64_t index) const;
};

struct SegmentOptions {
  bool conformed = false;   // results on the network's own grid instead of the input's
  bool confidence = false, entropy = false;
  int candidates = 1;            // PredictOptions; more than 1: Segmentation::candidates and, with `confidence`, their probabilities
  DType precision = DType::f32;  // PredictOptions
  std::uint64_t max_bytes = 0;  // of the whole program; slower plans that need less are taken, what fits by none is refused (out_of_memory). 0: no limit
  bool head_only = false;       // PredictOptions
  std::function<void(double)> progress;
};

struct Segmentation {
  Volume labels;                     // i32: ids as the model's labels say (class indices if it has none)
  std::optional<Volume> confidence;  // f32: softmax probability of the label, resampled linearly
  std::optional<Volume> entropy;     // f32: of all classes' probabilities, in nats, resampled linearly
  std::optional<Volume> candidates;  // i32, a channel for each candidate: ids of the likeliest labels, the first of them `labels`
  std::optional<Volume> chances;     // f32: their probabilities, resampled linearly
  Volume image;                      // what was segmented, on the labels' grid, intensities as in the file (conformed: 0..255)
  double read_seconds = 0, network_seconds = 0, total_seconds = 0;
  Warnings warnings;
};

// Throws invalid_argument where the scan does not fit the network (channels, a volume for a network of pictures), numeric where it holds one value
// everywhere, out_of_memory.
Segmentation segment(Context& ctx, Segmenter& segmenter, const Volume& scan, const SegmentOptions& options = {});

// Window, overlap and padding of a recipe.
PredictOptions predict_options(const Recipe& recipe);

// The tensor that the network will see for this scan: (N, D, H, W, C).
Shape network_input(const Segmenter& segmenter, const Volume& scan);

}  // namespace vg
