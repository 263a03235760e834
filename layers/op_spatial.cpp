// The graph's operations that change extents without weights: "max_pool" (kernel, stride, pad, pad_high) and "upsample" (factor, mode).
#include "layers/attributes.h"

namespace vg {
namespace {

std::vector<ParamSpec> none(const Node&, std::span<const Shape>) { return {}; }
OpCost pool_cost(const Node&, std::span<const Shape>, const Shape&) { return {}; }
OpCost upsample_cost(const Node&, std::span<const Shape>, const Shape&) { return {.keeps_inputs = false}; }
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

VG_OP(max_pool, {"max_pool", pool_shape, none, pool_run, pool_cost});
VG_OP(upsample, {"upsample", upsample_shape, none, upsample_run, upsample_cost});

}  // namespace
}  // namespace vg
