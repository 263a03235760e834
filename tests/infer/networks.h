// Networks so small that their results can be written down: points that decide by intensity, neighbours that shift a picture.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "infer/recipe.h"
#include "layers/model_file.h"

namespace vg::test {

// One convolution with a bias and no padding beyond "same": parameters "w" and "b".
inline Graph one_conv(int spatial_dims, int in_channels, int classes, std::vector<int> kernel = {1, 1, 1}) {
  Graph g;
  g.spatial_dims = spatial_dims, g.in_channels = in_channels;
  const Json pad = {kernel[0] / 2, kernel[1] / 2, kernel[2] / 2};
  g.nodes.push_back(
      {"head", "conv", {"input"}, {{"weight", "w"}, {"bias", "b"}}, {{"channels", classes}, {"kernel", kernel}, {"pad", pad}}});
  g.outputs = {"head"};
  return g;
}

inline void set(Network& net, const char* name, const std::vector<float>& values) {
  copy(net.params.at(name).value, from_host(values, net.params.at(name).value.shape()));
}

// Scores whose winner is the number of thresholds that x exceeds: lines of slope k that meet at the thresholds.
inline std::pair<std::vector<float>, std::vector<float>> threshold_lines(const std::vector<double>& thresholds) {
  std::vector<float> w = {0.0f}, b = {0.0f};
  double sum = 0.0;
  for (double t : thresholds) sum += t, w.push_back(static_cast<float>(w.size())), b.push_back(static_cast<float>(-sum));
  return {w, b};
}
inline int above(double x, const std::vector<double>& thresholds) {
  int k = 0;
  for (double t : thresholds) k += x > t;
  return k;
}

// A model that classifies each voxel by its intensity, or (tap >= 0) by the intensity that the 3 x 3 (x 3) kernel's tap sees: a neighbour's.
inline Model threshold_model(int spatial_dims, const std::vector<double>& thresholds, const Recipe& recipe,
                             std::vector<int> kernel = {1, 1, 1}, int tap = 0) {
  const auto classes = static_cast<int>(thresholds.size()) + 1, taps = kernel[0] * kernel[1] * kernel[2];
  Model m;
  m.graph = one_conv(spatial_dims, 1, classes, kernel);
  const auto [slopes, offsets] = threshold_lines(thresholds);
  std::vector<float> w(static_cast<std::size_t>(classes * taps), 0.0f);
  for (int k = 0; k < classes; ++k) w[static_cast<std::size_t>(k * taps + tap)] = slopes[static_cast<std::size_t>(k)];
  const Shape shape =
      spatial_dims == 2 ? Shape{classes, 1, kernel[1], kernel[2]} : Shape{classes, 1, kernel[0], kernel[1], kernel[2]};  // PyTorch's
  m.weights = {{"w", from_host(w, shape)}, {"b", from_host(offsets, {classes})}};
  m.recipe = to_json(recipe);
  return m;
}

}  // namespace vg::test
