// The flat parameter buffer and its initial values.
#include "layers/params.h"

#include <cmath>
#include <set>

#include "kernels/elementwise.h"

namespace vg {
namespace {

// Parameters begin at multiples of 64 bytes, so that vector loads of any of them are aligned.
constexpr std::int64_t kAlign = 16;
std::int64_t padded(std::int64_t n) { return (n + kAlign - 1) / kAlign * kAlign; }

float draw(Random& random, const Init& init) {
  const auto fan_in = static_cast<float>(init.fan_in);
  const float variance = 2.0f / ((1.0f + init.value * init.value) * fan_in);
  switch (init.kind) {
    case Init::Kind::constant: return init.value;
    case Init::Kind::kaiming_normal: return std::sqrt(variance) * random.normal();
    case Init::Kind::kaiming_uniform: {
      const float bound = std::sqrt(3.0f * variance);
      return random.uniform(-bound, bound);
    }
    case Init::Kind::fan_in_uniform: {
      const float bound = 1.0f / std::sqrt(fan_in);
      return random.uniform(-bound, bound);
    }
  }
  return 0.0f;
}

}  // namespace

ParamList::ParamList(const std::vector<ParamSpec>& specs, Device device, bool with_grad) {
  std::int64_t trainable = 0, buffers = 0;
  std::set<std::string> names;
  for (const ParamSpec& s : specs) {
    require(names.insert(s.name).second, "parameter {}: the name is used twice", s.name);
    (s.trainable ? trainable : buffers) += padded(s.shape.elements());
  }
  flat_ = zeros({trainable}, DType::f32, device);
  buffers_ = zeros({buffers}, DType::f32, device);
  if (with_grad) flat_grad_ = zeros({trainable}, DType::f32, device);
  std::int64_t at = 0, at_buffer = 0;
  for (const ParamSpec& s : specs) {
    Param p{.name = s.name, .value = {}, .grad = {}, .has_grad = false, .trainable = s.trainable, .init = s.init};
    std::int64_t& position = s.trainable ? at : at_buffer;
    p.value = (s.trainable ? flat_ : buffers_).range(position, s.shape);
    if (s.trainable && with_grad) p.grad = flat_grad_.range(position, s.shape);
    position += padded(s.shape.elements());
    params_.push_back(std::move(p));
  }
}

void ParamList::initialise(std::uint64_t seed) {
  for (std::size_t i = 0; i < params_.size(); ++i) {
    Random random(seed, i);
    std::vector<float> values(static_cast<std::size_t>(params_[i].value.elements()));
    const auto equal = static_cast<std::size_t>(params_[i].init.equal), row = values.size() / static_cast<std::size_t>(params_[i].value.shape()[0]);
    for (std::size_t at = 0; at < values.size(); ++at)
      values[at] = at / row % equal == 0 ? draw(random, params_[i].init) : values[at - row];
    copy(params_[i].value, wrap(values.data(), params_[i].value.shape(), DType::f32));
  }
}

const Param* ParamList::find(const std::string& name) const {
  for (const Param& p : params_)
    if (p.name == name) return &p;
  return nullptr;
}

const Param& ParamList::at(const std::string& name) const {
  const Param* p = find(name);
  require(p, "no parameter is called \"{}\"", name);
  return *p;
}

Param& ParamList::at(const std::string& name) { return const_cast<Param&>(std::as_const(*this).at(name)); }

std::int64_t ParamList::trainable_elements() const {
  std::int64_t total = 0;
  for (const Param& p : params_) total += p.trainable ? p.value.elements() : 0;
  return total;
}

void ParamList::zero_grad() {
  for (Param& p : params_) p.has_grad = false;
}

void ParamList::finish_grad(const Exec& exec) {
  for (Param& p : params_)
    if (p.trainable && !p.has_grad) fill(exec, p.grad, FillParams{0.0f}), p.has_grad = true;
}

}  // namespace vg
