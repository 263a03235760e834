// Golden vectors: made once, when the model is, and run again wherever somebody doubts a device or a build.
#include "infer/self_test.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tensor/random.h"

namespace vg {
namespace {

// (N, C, D, H, W) <-> (N, D, H, W, C)
Tensor channels_last(const Tensor& x) {
  const Shape s = x.shape();
  Tensor y({s[0], s[2], s[3], s[4], s[1]}, DType::f32, kCpu);
  const std::int64_t voxels = s[2] * s[3] * s[4];
  for (std::int64_t n = 0; n < s[0]; ++n)
    for (std::int64_t c = 0; c < s[1]; ++c)
      for (std::int64_t v = 0; v < voxels; ++v) y.data<float>()[(n * voxels + v) * s[1] + c] = x.data<float>()[(n * s[1] + c) * voxels + v];
  return y;
}
Tensor channels_first(const Tensor& y) {
  const Shape s = y.shape();
  Tensor x({s.n(), s.c(), s.d(), s.h(), s.w()}, DType::f32, kCpu);
  for (std::int64_t n = 0; n < s.n(); ++n)
    for (std::int64_t c = 0; c < s.c(); ++c)
      for (std::int64_t v = 0; v < s.voxels(); ++v)
        x.data<float>()[(n * s.c() + c) * s.voxels() + v] = y.data<float>()[(n * s.voxels() + v) * s.c() + c];
  return x;
}

// Logits (N, O, D, H, W) of the weights as they are stored.
Tensor run_golden(const Model& model, const Tensor& input, Device device) {
  Network net(model.graph, device, false);
  load_weights(net, model.weights, "golden");
  Context ctx(device);
  const std::vector<Value> out = run(ctx, net, Value{copy_to(channels_last(input), device)});
  return channels_first(copy_to(out.at(0).data, kCpu));
}

const Tensor& golden(const Model& model, const std::string& name) {
  for (const auto& [n, t] : model.golden)
    if (n == name) {
      if (t.shape().rank() != 5 || t.dtype() != DType::f32)
        fail(ErrorCode::bad_file, "{}: {} {}, wanted f32 (N, C, D, H, W)", name, name_of(t.dtype()), to_string(t.shape()));
      return t;
    }
  fail(ErrorCode::bad_file, "the model has no {}: nothing to test it with", name);
}

}  // namespace

void add_golden(Model& model) {
  const std::vector<int> divisor = model.graph.divisor();
  const auto extent = [&](std::size_t axis) -> std::int64_t {  // the smallest multiple from 16 on
    return model.graph.spatial_dims == 2 && axis == 0 ? 1 : (16 + divisor[axis] - 1) / divisor[axis] * divisor[axis];
  };
  Tensor input({1, model.graph.in_channels, extent(0), extent(1), extent(2)}, DType::f32, kCpu);
  Random random(0);
  for (std::int64_t i = 0; i < input.elements(); ++i) input.data<float>()[i] = random.uniform();
  model.golden = {{"golden.input", input}, {"golden.logits", run_golden(model, input, kCpu)}};
}

float self_test(const Model& model, Device device) {
  const Tensor &input = golden(model, "golden.input"), &wanted = golden(model, "golden.logits");
  const Tensor found = run_golden(model, input, device);
  if (found.shape() != wanted.shape())
    fail(ErrorCode::bad_file, "golden.logits: {}, the network gives {}", to_string(wanted.shape()), to_string(found.shape()));
  float worst = 0.0f;
  for (std::int64_t i = 0; i < found.elements(); ++i) {
    const float difference = std::fabs(found.data<float>()[i] - wanted.data<float>()[i]);
    if (!(difference <= std::numeric_limits<float>::max())) return std::numeric_limits<float>::infinity();  // NaN
    worst = std::max(worst, difference);
  }
  return worst;
}

}  // namespace vg
