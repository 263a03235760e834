// Convolution by a library: weights change their layout on the way in, weight gradients on the way out, a second input is a second convolution that
// adds. Halves travel in rows of a multiple of 8 channels: what is not so is copied to scratch memory, and the result is copied back. Bias and activation
// are the library's where it can, else they follow in one pass over the result. Compiled for the cuda slot alone.
#include "kernels/activation.cuh"
#include "kernels/conv_library.cuh"

#if defined(VG_SLOT_CUDA) && VG_SLOT_CUDA
#include "kernels/conv_sources.cuh"
#include "kernels/cuda/conv_library.h"

namespace vg {
namespace gpu {

// packed[o, tap, i] = w[o, first + i, tap] for i < count; one thread per element of packed, neighbours in i.
__global__ __launch_bounds__(kThreads) void library_pack_kernel(float* __restrict__ packed, const float* __restrict__ w, int taps, int inputs,
                                                                int first, int count, std::int64_t n) {
  for (std::int64_t e = flat_begin<1>(); e < n; e += flat_step<1>()) {
    const std::int64_t row = e / count, o = row / taps;
    const int i = static_cast<int>(e - row * count), tap = static_cast<int>(row - o * taps);
    packed[e] = w[(o * inputs + first + i) * taps + tap];
  }
}

// The same in halves, rows of `eights` times 8 channels; zero where i >= count or o >= outputs. One thread per 8 channels, neighbours in tap, which are
// neighbours in w; n of them.
template <class H>
__global__ __launch_bounds__(kThreads) void library_pack_half_kernel(H* __restrict__ packed, const float* __restrict__ w, int taps, int inputs,
                                                                     int first, int count, int eights, int outputs, std::int64_t n) {
  for (std::int64_t e = flat_begin<1>(); e < n; e += flat_step<1>()) {
    const std::int64_t row = e / taps, o = row / eights;
    const int tap = static_cast<int>(e - row * taps), eight = static_cast<int>(row - o * eights), left = o < outputs ? count - eight * 8 : 0;
    const float* own = w + (o * inputs + first + eight * 8) * taps + tap;
    Pack<8> values{};
    SIMT_UNROLL for (int i = 0; i < 8; ++i) if (i < left) values.v[i] = own[static_cast<std::int64_t>(i) * taps];
    store<8>(packed + ((o * taps + tap) * eights + eight) * 8, values);
  }
}

// dw[o, first + i, tap] = beta dw + packed[o, tap, i], rows of `pitch` channels; one thread per element of dw, neighbours in tap.
template <class T>
__global__ __launch_bounds__(kThreads) void library_unpack_kernel(float* __restrict__ dw, const T* __restrict__ packed, float beta, int taps,
                                                                  int inputs, int first, int count, int pitch, std::int64_t n) {
  for (std::int64_t e = flat_begin<1>(); e < n; e += flat_step<1>()) {
    const std::int64_t pair = e / taps, o = pair / count;
    const int tap = static_cast<int>(e - pair * taps), i = static_cast<int>(pair - o * count);
    store<1>(dw + (o * inputs + first + i) * taps + tap, Pack<1>{{to_float(packed[(o * taps + tap) * pitch + i])}}, beta);
  }
}

// y[v, c] = beta y[v, c] + f(from[v, c] + b[c]); rows of `from` are `pitch` long. `from` may be y.
template <int V, class T>
__global__ __launch_bounds__(kThreads) void library_finish_kernel(T* y, const T* from, int pitch, const float* __restrict__ bias,
                                                                  ActivationKind kind, float alpha, float beta, std::int64_t rows,
                                                                  std::int64_t channels, std::int64_t chunk) {
  const Column mine = column_of_thread<V>(channels);
  if (!mine.active) return;
  Pack<V> b{};
  if (bias) SIMT_UNROLL for (int j = 0; j < V; ++j) b.v[j] = bias[mine.first + j];
  const std::int64_t begin = blockIdx.x * chunk, end = begin + chunk < rows ? begin + chunk : rows;
  for (std::int64_t r = begin + mine.row; r < end; r += mine.rows) {
    Pack<V> x = load<V>(from + r * pitch + mine.first);
    SIMT_UNROLL for (int j = 0; j < V; ++j) x.v[j] = activate(kind, alpha, x.v[j] + b.v[j]);
    store<V>(y + r * channels + mine.first, x, beta);
  }
}

bool on_bytes(const void* p, std::uintptr_t bytes) { return reinterpret_cast<std::uintptr_t>(p) % bytes == 0; }

template <class T>
void finish(const Exec& ex, T* y, const T* from, std::int64_t pitch, const float* bias, const Activation& f, float beta, std::int64_t rows,
            std::int64_t channels) {
  if (from == y && !bias && f.kind == ActivationKind::identity) return;
  const auto launch = [&](auto width) {
    constexpr int kWidth = decltype(width)::value;
    const ColumnGrid g = column_grid(rows, channels / kWidth, false);
    const auto library_finish_any = library_finish_kernel<kWidth, T>;
    VG_LAUNCH(ex, library_finish_any, g.grid(1), kThreads, 0, y, from, static_cast<int>(pitch), bias, f.kind, f.alpha, beta, rows, channels, g.chunk);
  };
  if constexpr (kIsHalf<T>)
    if (channels % 8 == 0 && on_bytes(y, 16)) return launch(std::integral_constant<int, 8>());
  if (channels % 4 == 0 && on_bytes(y, 4 * sizeof(T))) return launch(std::integral_constant<int, 4>());
  launch(std::integral_constant<int, 1>());
}

int taps_of(const Shape& w) { return static_cast<int>(w[2] * w[3] * w[4]); }

// Channels as the library counts them.
template <class T>
std::int64_t lanes(std::int64_t channels) {
  return kIsHalf<T> ? (channels + 7) / 8 * 8 : channels;
}

// x: extents and samples of the input side, y: of the output side.
template <class T>
ConvProblem problem(const Exec& ex, ConvProblem::Pass pass, const Shape& x, const Shape& y, const Shape& w, const ConvParams& p,
                    std::int64_t inputs) {
  ConvProblem q;
  q.pass = pass, q.type = q.w_type = DTypeOf<T>::value;
  q.nondeterministic = ex.convolution.nondeterministic;
  q.exact = ex.convolution.allow != ConvAlgorithm::Allow::fast;
  q.tf32 = !kIsHalf<T> && ex.convolution.tf32;
  q.device = ex.device.index;
  q.samples = x.n(), q.inputs = lanes<T>(inputs), q.outputs = lanes<T>(w[0]);
  for (int a = 0; a < 3; ++a) {
    q.in[a] = x[a + 1], q.out[a] = y[a + 1];
    q.kernel[a] = static_cast<std::int32_t>(w[a + 2]);
    q.stride[a] = p.stride[a], q.dilation[a] = p.dilation[a], q.pad[a] = p.pad[a];
  }
  return q;
}

// One of the (at most two) tensors on the input side, and its channels' place in the weights.
struct Part {
  Tensor x;  // undefined: there is none
  float beta = 0.0f;
  std::int64_t first = 0, count = 0;
  ConvProblem problem;
  std::shared_ptr<ConvPlan> plan;
};

// Bytes of the copy of a tensor that does not lie as the library wants it; 0: it does.
template <class T>
std::int64_t copy_bytes(const Tensor& t) {
  return kIsHalf<T> ? padded_bytes(t) : 0;
}
template <class T>
T* writable(const Tensor& t) {
  return const_cast<T*>(t.data<T>());
}
// t's numbers in rows of lanes(C): where they are, or copied to `memory`.
template <class T>
T* readable(const Exec& ex, const Tensor& t, char* memory) {
  if constexpr (kIsHalf<T>)
    return const_cast<T*>(in_eights<T>(ex, t, memory));
  else
    return writable<T>(t);
}

// The plan of one part: with bias and activation in one go if the library can, and the gradient of halves in f32 if it can.
bool plan_part(const Exec& ex, Part& part, const float* bias, const Activation& f) {
  const auto find = [&](const ConvProblem& p) {
    part.problem = p;
    part.plan = find_plan(p, ex.convolution.engine);
    return part.plan != nullptr;
  };
  const ConvProblem plain = part.problem;
  ConvProblem wish = plain;
  if (plain.pass == ConvProblem::Pass::weight && plain.type != DType::f32) {
    wish.w_type = DType::f32;
    if (find(wish)) return true;
  }
  if (aligned16(bias) && (bias || f.kind != ActivationKind::identity)) {
    wish.bias = bias != nullptr, wish.activation = f.kind;
    if (f.kind == ActivationKind::leaky_relu || f.kind == ActivationKind::elu) wish.alpha = f.alpha;
    if (find(wish)) return true;
  }
  return find(plain);
}

// Plans for all parts, or false. shared: the tensor on the output side, y or dy. bias, f: what follows the sum, where the lone part writes into its place.
template <class T>
bool plan_all(const Exec& ex, ConvProblem::Pass pass, const Shape& x, const Tensor& shared, const Shape& w, const ConvParams& p, Part (&parts)[2],
              const float* bias = nullptr, const Activation& f = {}) {
  using Pass = ConvProblem::Pass;
  if (x.n() == 0 || x.voxels() == 0 || shared.shape().voxels() == 0) return false;
  for (const Part& part : parts)
    if (part.x.defined() && !library_may(ex.convolution.engine, part.count, w[0])) return false;
  use_device(ex);
  const bool both = parts[0].x.defined() && parts[1].x.defined();
  for (Part& part : parts) {
    if (!part.x.defined()) continue;
    if (!kIsHalf<T> && !(aligned16(part.x.raw()) && aligned16(shared.raw()))) return false;  // halves are copied then
    part.problem = problem<T>(ex, pass, x, shared.shape(), w, p, part.count);
    const bool copied = pass != Pass::weight && copy_bytes<T>(pass == Pass::data ? part.x : shared) > 0;
    // A second input adds to what the first one left in y. A gradient that is copied back is added on the way.
    part.problem.add = pass == Pass::forward ? both && &part == &parts[1] : pass == Pass::data && part.beta != 0.0f && !copied;
    const bool tail = !both && !copied && !part.problem.add;
    if (!plan_part(ex, part, tail ? bias : nullptr, tail ? f : Activation{})) return false;
  }
  return true;
}

// [weights of one part][copy of its tensor][copy of the shared tensor][workspace]; each on 256 bytes.
struct Space {
  void* packed;
  char *part, *shared;
  void* workspace;
};
template <class T>
Space reserve(const Exec& ex, const Tensor& shared, const Shape& w, const Part (&parts)[2]) {
  std::int64_t packed = 0, copy = 0, work = 0;
  const auto most = [](std::int64_t& a, std::int64_t b) { a = a < b ? b : a; };
  for (const Part& part : parts) {
    if (!part.x.defined()) continue;
    most(packed, whole_piece(lanes<T>(w[0]) * taps_of(w) * lanes<T>(part.count) * static_cast<std::int64_t>(size_of(part.problem.w_type))));
    most(copy, copy_bytes<T>(part.x));
    most(work, static_cast<std::int64_t>(part.plan->workspace));
  }
  char* data = ex.scratch->reserve<char>(packed + copy + copy_bytes<T>(shared) + work);
  return {data, data + packed, data + packed + copy, data + packed + copy + copy_bytes<T>(shared)};
}

void run(const Exec& ex, const Part& part, void* x, void* y, const float* bias, const Space& space) {
  if (const char* why = part.plan->run(x, space.packed, y, part.problem.bias ? bias : nullptr, space.workspace, stream_of(ex)))
    throw Error(ErrorCode::no_device, "convolution by the library (" + part.plan->name + "): " + why);
}

template <class T>
void pack(const Exec& ex, void* packed, const Tensor& w, const Part& part) {
  const int taps = taps_of(w.shape()), inputs = static_cast<int>(w.shape()[1]), first = static_cast<int>(part.first),
            count = static_cast<int>(part.count), outputs = static_cast<int>(w.shape()[0]);
  if constexpr (kIsHalf<T>) {
    const int eights = (count + 7) / 8;
    const std::int64_t n = lanes<T>(outputs) * taps * eights;
    VG_LAUNCH(ex, library_pack_half_kernel<T>, flat_blocks(n, false), kThreads, 0, static_cast<T*>(packed), w.data<float>(), taps, inputs, first,
              count, eights, outputs, n);
  } else {
    const std::int64_t n = std::int64_t{outputs} * taps * count;
    VG_LAUNCH(ex, library_pack_kernel, flat_blocks(n, false), kThreads, 0, static_cast<T*>(packed), w.data<float>(), taps, inputs, first, count, n);
  }
}

template <class T>
void unpack(const Exec& ex, const Grad& dw, const void* packed, const Part& part) {
  const int taps = taps_of(dw.shape());
  const std::int64_t n = dw.shape()[0] * taps * part.count;
  VG_LAUNCH(ex, library_unpack_kernel<T>, flat_blocks(n, false), kThreads, 0, dw.data(), static_cast<const T*>(packed), dw.beta, taps,
            static_cast<int>(dw.shape()[1]), static_cast<int>(part.first), static_cast<int>(part.count), static_cast<int>(part.problem.inputs), n);
}

template <class T>
bool forward(const Exec& ex, Tensor& y, Part (&parts)[2], const Tensor& w, const float* bias, const ConvParams& p) {
  if (!plan_all<T>(ex, ConvProblem::Pass::forward, parts[0].x.shape(), y, w.shape(), p, parts, bias, p.activation)) return false;
  const Space space = reserve<T>(ex, y, w.shape(), parts);
  T *const out = writable<T>(y), *to = copy_bytes<T>(y) > 0 ? reinterpret_cast<T*>(space.shared) : out;
  for (const Part& part : parts) {
    if (!part.x.defined()) continue;
    pack<T>(ex, space.packed, w, part);
    run(ex, part, readable<T>(ex, part.x, space.part), to, bias, space);
  }
  if (!fused(parts[0].problem))
    finish(ex, out, to, lanes<T>(y.shape().c()), bias, p.activation, 0.0f, y.shape().n() * y.shape().voxels(), y.shape().c());
  return true;
}

template <class T>
bool backward_data(const Exec& ex, const Shape& x, Part (&parts)[2], const Tensor& dy, const Tensor& w, const float* bias, const ConvParams& p) {
  if (!plan_all<T>(ex, ConvProblem::Pass::data, x, dy, w.shape(), p, parts, bias)) return false;
  const Space space = reserve<T>(ex, dy, w.shape(), parts);
  T* const from = readable<T>(ex, dy, space.shared);
  for (const Part& part : parts) {
    if (!part.x.defined()) continue;
    T *const out = writable<T>(part.x), *to = copy_bytes<T>(part.x) > 0 ? reinterpret_cast<T*>(space.part) : out;
    pack<T>(ex, space.packed, w, part);
    run(ex, part, to, from, bias, space);
    if (!fused(part.problem))
      finish(ex, out, to, lanes<T>(part.count), bias, Activation{}, to == out ? 0.0f : part.beta, x.n() * x.voxels(), part.count);
  }
  return true;
}

template <class T>
bool backward_weight(const Exec& ex, const Grad& dw, const Tensor& dy, Part (&parts)[2], const ConvParams& p) {
  if (!plan_all<T>(ex, ConvProblem::Pass::weight, parts[0].x.shape(), dy, dw.shape(), p, parts)) return false;
  const Space space = reserve<T>(ex, dy, dw.shape(), parts);
  T* const from = readable<T>(ex, dy, space.shared);
  for (const Part& part : parts) {
    if (!part.x.defined()) continue;
    run(ex, part, readable<T>(ex, part.x, space.part), from, nullptr, space);
    part.problem.w_type == DType::f32 ? unpack<float>(ex, dw, space.packed, part) : unpack<T>(ex, dw, space.packed, part);
  }
  return true;
}

bool library_forward(const Exec& ex, Tensor& y, const Tensor& x0, const Tensor& x1, const Tensor& w, const Tensor& b, const ConvParams& p) {
  const std::int64_t c0 = x0.shape().c(), c1 = x1.defined() ? x1.shape().c() : 0;
  Part parts[2] = {{x0, 0.0f, 0, c0, {}, nullptr}, {x1, 0.0f, c0, c1, {}, nullptr}};
  bool done = false;
  for_float_type(y.dtype(), "conv_forward", [&](auto zero) {
    using T = decltype(zero);
    if constexpr (kIsHalf<T>) require_tensor_cores<T>(ex, "conv_forward");
    done = forward<T>(ex, y, parts, w, data_or_null(b), p);
  });
  return done;
}

bool library_backward_data(const Exec& ex, const Grad& dx0, const Grad& dx1, const Tensor& dy, const Tensor& w, const Tensor& b,
                           const ConvParams& p) {
  if (b.defined() && dx1.wanted()) return false;  // a part's own piece of a bias may lie on any address
  const std::int64_t inputs = w.shape()[1], c1 = dx1.wanted() ? dx1.shape().c() : 0, c0 = dx0.wanted() ? dx0.shape().c() : inputs - c1;
  Part parts[2] = {{dx0.tensor, dx0.beta, 0, c0, {}, nullptr}, {dx1.tensor, dx1.beta, inputs - c1, c1, {}, nullptr}};
  bool done = false;
  for_float_type(dy.dtype(), "conv_backward_data", [&](auto zero) {
    using T = decltype(zero);
    if constexpr (kIsHalf<T>) require_tensor_cores<T>(ex, "conv_backward_data");
    done = backward_data<T>(ex, dx0.wanted() ? dx0.shape() : dx1.shape(), parts, dy, w, data_or_null(b), p);
  });
  return done;
}

bool library_backward_weight(const Exec& ex, const Grad& dw, const Tensor& dy, const Tensor& x0, const Tensor& x1, const ConvParams& p) {
  const std::int64_t c0 = x0.shape().c(), c1 = x1.defined() ? x1.shape().c() : 0;
  Part parts[2] = {{x0, 0.0f, 0, c0, {}, nullptr}, {x1, 0.0f, c0, c1, {}, nullptr}};
  bool done = false;
  for_float_type(dy.dtype(), "conv_backward_weight", [&](auto zero) { done = backward_weight<decltype(zero)>(ex, dw, dy, parts, p); });
  return done;
}

}  // namespace gpu
}  // namespace vg
#endif
