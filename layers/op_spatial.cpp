// The graph's spatial operations without weights: "max_pool" (kernel, stride, pad, pad_high), "upsample" (factor, mode), "pixel_shuffle" (factor;
// a second input lends its extents), "blur" (kernel).
#include "layers/attributes.h"

namespace vg {
namespace {

std::vector<ParamSpec> none(const Node&, std::span<const Shape>) { return {}; }
OpCost pool_cost(const Node&, std::span<const Shape>, const Shape&, const ConvAlgorithm&) { return {}; }
OpCost moving_cost(const Node&, std::span<const Shape>, const Shape&, const ConvAlgorithm&) { return {.keeps = OpCost::Keeps::nothing, .backward_sweeps = 2}; }
void one_input(std::span<const Shape> in) { require(in.size() == 1, "{} inputs, wanted one", in.size()); }

struct PoolNode {
  PoolParams params;
  std::int32_t pad_high[3];
};

PoolNode read_pool(const Node& node) {
  Attributes a(node);
  PoolNode n;
  a.axes("kernel", n.params.kernel, 2);
  a.axes("stride", n.params.stride, 2);
  a.axes("pad", n.params.pad, 0);
  a.axes("pad_high", n.pad_high, 0);
  if (!node.attributes.contains("pad_high")) std::copy_n(n.params.pad, 3, n.pad_high);
  a.done(), a.roles({});
  return n;
}

Shape pool_shape(const Node& node, std::span<const Shape> in) {
  one_input(in);
  return max_pool_shape(in[0], read_pool(node).params, read_pool(node).pad_high);
}
Value pool_run(Context& ctx, const Node& node, std::vector<Value> in, const NodeParams&) {
  const PoolNode n = read_pool(node);
  return max_pool(ctx, std::move(in[0]), n.params, n.pad_high);
}

UpsampleParams read_upsample(const Node& node) {
  Attributes a(node);
  UpsampleParams p;
  a.axes("factor", p.factor, 2);
  const std::string mode = a.text("mode", "nearest");
  a.done(), a.roles({});
  if (mode != "nearest" && mode != "linear") fail(ErrorCode::bad_file, "node {}: upsample mode \"{}\" (known: nearest, linear)", node.name, mode);
  p.linear = mode == "linear";
  return p;
}

Shape upsample_shape(const Node& node, std::span<const Shape> in) {
  one_input(in);
  return upsample_shape(in[0], read_upsample(node));
}
Value upsample_run(Context& ctx, const Node& node, std::vector<Value> in, const NodeParams&) {
  return upsample(ctx, std::move(in[0]), read_upsample(node));
}

PixelShuffleParams read_pixel_shuffle(const Node& node) {
  Attributes a(node);
  PixelShuffleParams p;
  a.axes("factor", p.factor, 2);
  a.done(), a.roles({});
  return p;
}

Shape pixel_shuffle_shape(const Node& node, std::span<const Shape> in) {
  require(in.size() == 1 || in.size() == 2, "{} inputs, wanted one or two", in.size());
  return pixel_shuffle_shape(in[0], read_pixel_shuffle(node), in.size() == 2 ? &in[1] : nullptr);
}
Value pixel_shuffle_run(Context& ctx, const Node& node, std::vector<Value> in, const NodeParams&) {
  const Shape like = in.back().shape();
  return pixel_shuffle(ctx, std::move(in[0]), read_pixel_shuffle(node), in.size() == 2 ? &like : nullptr);
}

BlurParams read_blur(const Node& node) {
  Attributes a(node);
  BlurParams p;
  a.axes("kernel", p.kernel, 2);
  a.done(), a.roles({});
  return p;
}

Shape blur_shape(const Node& node, std::span<const Shape> in) {
  one_input(in), read_blur(node);
  return in[0];
}
Value blur_run(Context& ctx, const Node& node, std::vector<Value> in, const NodeParams&) { return blur(ctx, std::move(in[0]), read_blur(node)); }

VG_OP(max_pool, {"max_pool", pool_shape, none, pool_run, pool_cost});
VG_OP(upsample, {"upsample", upsample_shape, none, upsample_run, moving_cost});
VG_OP(pixel_shuffle, {"pixel_shuffle", pixel_shuffle_shape, none, pixel_shuffle_run, moving_cost});
VG_OP(blur, {"blur", blur_shape, none, blur_run, moving_cost});

}  // namespace
}  // namespace vg
