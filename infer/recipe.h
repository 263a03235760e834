// A recipe says how a scan becomes a network's input: which frame, which intensities, which pieces. It travels in the model file ("vg.recipe"), so
// that training, validation and inference prepare data by the same function. Plain data here; infer/ acts on it in the order of the members.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "layers/graph.h"
#include "tensor/tensor.h"

namespace vg {

struct Intensity {
  // "none"      v
  // "quantile"  (v - q_low) / (q_high - q_low), quantiles as numpy.quantile's (linear interpolation, f32), then clipped to [0, 1] if `clip`
  // "minmax"    (v - min) / (max - min)
  // "zscore"    (v - mean) / max(std, 1e-8), std divided by the count
  std::string kind = "none";
  double low = 0.02, high = 0.98;  // quantile: as fractions
  bool clip = true;                // quantile
  std::string mask = "whole";      // zscore: "whole", or "nonzero": statistics of voxels that are not 0, and those that are stay 0
};

struct Recipe {
  // Axes of the stored weights: "kji": (D, H, W) of a tensor is the file's order (k, j, i) and nothing is done; "ijk": trained on (i, j, k), so the
  // weights' spatial axes are reversed when they are loaded (permute_axes), which is cheaper than turning every volume.
  std::string axes = "kji";
  // "none", or "meshnet": 256^3 voxels of 1 mm, LIA, unsigned 8-bit intensities, as FreeSurfer's mri_convert --conform.
  std::string conform = "none";
  std::string orientation;      // letters of the directions in which i, j, k grow ("RAS"); "": as in the file
  std::vector<double> spacing;  // mm along D, H, W; empty: as in the file
  Intensity intensity;
  bool per_slice = false;  // intensities are taken from each 2-D slice alone (not from the volume)
  // 2-D networks: "image" (each picture as it is), or the planes of a volume: "axial", "coronal", "sagittal". "": the network is 3-D
  std::string slices;
  std::vector<int> window;   // D, H, W of the sliding window; empty: the whole volume or slice at once
  double overlap = 0.5;      // of neighbouring windows, as a fraction of the window
  std::vector<int> divisor;  // D, H, W: pad with zeros to multiples of these; empty: Graph::divisor()
};

// Strict both ways: an unknown key, a missing one (a silent default would be a silent loss of accuracy), or a value that is none of the above
// throws bad_file; `where` opens the message.
Recipe recipe_from_json(const Json& j, const std::string& where);
Json to_json(const Recipe& r);

struct NormaliseReport {              // per channel
  float offset = 0.0f, scale = 1.0f;  // y = (v - offset) / scale
  std::int64_t not_finite = 0;        // NaN and infinite voxels: left out of all statistics, 0 in the result
  bool constant = false;              // scale would be 0: the result is 0 everywhere
};
// volume: (D, H, W) or (1, D, H, W, C), f32, cpu; each channel for itself. Returns a new tensor of the same shape. The same bits for any number of
// threads. Throws invalid_argument.
Tensor normalise(const Tensor& volume, const Intensity& intensity, std::vector<NormaliseReport>* report = nullptr);
inline Tensor normalise(const Tensor& volume, const Recipe& recipe, std::vector<NormaliseReport>* report = nullptr) {
  return normalise(volume, recipe.intensity, report);
}

// numpy.quantile(values, q) for float32 values and each q in [0, 1], exactly, without sorting; values that are not finite are left out (*not_finite
// counts them). Empty when no value is finite.
std::vector<float> quantiles(const float* values, std::int64_t count, const std::vector<double>& q, std::int64_t* not_finite = nullptr);

// The network that sees (k, j, i) what the given one sees as (i, j, k): weights (O, I, kD, kH, kW) -> (O, I, kW, kH, kD), others as they are; kernel,
// stride, dilation, padding and factors of the graph likewise. Throws invalid_argument for a 2-D graph.
std::vector<std::pair<std::string, Tensor>> permute_axes(const std::vector<std::pair<std::string, Tensor>>& weights);
Graph permute_axes(Graph graph);

}  // namespace vg
