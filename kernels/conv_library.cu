// Convolution by a library: weights change their layout on the way in, weight gradients on the way out, a second input is a second convolution that
// adds. Bias and activation follow in one pass over the result. Float tensors only; half ones go to our own tensor-core kernels. Compiled for the cuda
// slot alone.
#include "kernels/activation.cuh"
#include "kernels/conv_library.cuh"

#if defined(VG_SLOT_CUDA) && VG_SLOT_CUDA
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

// dw[o, first + i, tap] = beta dw + packed[o, tap, i]; one thread per element, neighbours in tap.
__global__ __launch_bounds__(kThreads) void library_unpack_kernel(float* __restrict__ dw, const float* __restrict__ packed, float beta, int taps,
                                                                  int inputs, int first, int count, std::int64_t n) {
  for (std::int64_t e = flat_begin<1>(); e < n; e += flat_step<1>()) {
    const std::int64_t pair = e / taps, o = pair / count;
    const int tap = static_cast<int>(e - pair * taps), i = static_cast<int>(pair - o * count);
    store<1>(dw + (o * inputs + first + i) * taps + tap, Pack<1>{{packed[(o * taps + tap) * count + i]}}, beta);
  }
}

// y[v, c] = f(y[v, c] + b[c])
template <int V>
__global__ __launch_bounds__(kThreads) void library_bias_kernel(float* y, const float* __restrict__ bias, ActivationKind kind, float alpha,
                                                                std::int64_t rows, std::int64_t channels, std::int64_t chunk) {
  const Column mine = column_of_thread<V>(channels);
  if (!mine.active) return;
  Pack<V> b{};
  if (bias) b = load<V>(bias + mine.first);
  const std::int64_t begin = blockIdx.x * chunk, end = begin + chunk < rows ? begin + chunk : rows;
  for (std::int64_t r = begin + mine.row; r < end; r += mine.rows) {
    float* at = y + r * channels + mine.first;
    Pack<V> x = load<V>(at);
    SIMT_UNROLL for (int j = 0; j < V; ++j) x.v[j] = activate(kind, alpha, x.v[j] + b.v[j]);
    store<V>(at, x);
  }
}

void finish(const Exec& ex, float* y, const float* bias, const Activation& f, std::int64_t rows, std::int64_t channels) {
  if (!bias && f.kind == ActivationKind::identity) return;
  const bool fours = in_fours(channels, y, bias);
  const ColumnGrid g = column_grid(rows, channels, fours);
  const auto library_bias_any = fours ? library_bias_kernel<4> : library_bias_kernel<1>;
  VG_LAUNCH(ex, library_bias_any, g.grid(1), kThreads, 0, y, bias, f.kind, f.alpha, rows, channels, g.chunk);
}

int taps_of(const Shape& w) { return static_cast<int>(w[2] * w[3] * w[4]); }

// x: extents and samples of the input side, y: of the output side.
ConvProblem problem(const Exec& ex, ConvProblem::Pass pass, const Shape& x, const Shape& y, const Shape& w, const ConvParams& p,
                    std::int64_t inputs, bool add) {
  ConvProblem q;
  q.pass = pass, q.add = add;
  q.nondeterministic = ex.convolution.nondeterministic;
  q.exact = ex.convolution.allow != ConvAlgorithm::Allow::fast;
  q.device = ex.device.index;
  q.samples = x.n(), q.inputs = inputs, q.outputs = w[0];
  for (int a = 0; a < 3; ++a) {
    q.in[a] = x[a + 1], q.out[a] = y[a + 1];
    q.kernel[a] = static_cast<std::int32_t>(w[a + 2]);
    q.stride[a] = p.stride[a], q.dilation[a] = p.dilation[a], q.pad[a] = p.pad[a];
  }
  return q;
}

// One of the (at most two) tensors on the input side, and its channels' place in the weights.
struct Part {
  float* data = nullptr;
  std::int64_t first = 0, count = 0;
  bool add = false;
  std::shared_ptr<ConvPlan> plan;
};

// Plans for all parts, or false.
bool plan_all(const Exec& ex, ConvProblem::Pass pass, const Shape& x, const Shape& y, const Shape& w, const ConvParams& p, Part (&parts)[2]) {
  if (x.n() == 0 || x.voxels() == 0 || y.voxels() == 0) return false;
  use_device(ex);
  for (Part& part : parts) {
    if (!part.data) continue;
    part.plan = find_plan(problem(ex, pass, x, y, w, p, part.count, part.add), ex.convolution.engine);
    if (!part.plan) return false;
  }
  return true;
}

// [packed weights of one part][workspace]; packed is 256-byte aligned, and so is what follows it.
struct Space {
  float* packed;
  void* workspace;
};
Space reserve(const Exec& ex, const Shape& w, const Part (&parts)[2]) {
  std::int64_t elements = 0, bytes = 0;
  for (const Part& part : parts) {
    if (!part.data) continue;
    const std::int64_t mine = w[0] * taps_of(w) * part.count, needs = static_cast<std::int64_t>(part.plan->workspace);
    elements = elements < mine ? mine : elements, bytes = bytes < needs ? needs : bytes;
  }
  const std::int64_t first = (elements * std::int64_t{sizeof(float)} + 255) / 256 * 256;
  char* data = ex.scratch->reserve<char>(first + bytes);
  return {reinterpret_cast<float*>(data), data + first};
}

void run(const Exec& ex, const Part& part, float* x, float* w, float* y, void* workspace) {
  if (const char* why = part.plan->run(x, w, y, workspace, stream_of(ex)))
    throw Error(ErrorCode::no_device, "convolution by the library (" + part.plan->name + "): " + why);
}

void pack(const Exec& ex, float* packed, const Tensor& w, const Part& part) {
  const int taps = taps_of(w.shape());
  const std::int64_t n = w.shape()[0] * taps * part.count;
  VG_LAUNCH(ex, library_pack_kernel, flat_blocks(n, false), kThreads, 0, packed, w.data<float>(), taps, static_cast<int>(w.shape()[1]),
            static_cast<int>(part.first), static_cast<int>(part.count), n);
}

float* writable(const Tensor& t) { return t.defined() ? const_cast<float*>(t.data<float>()) : nullptr; }

bool library_forward(const Exec& ex, Tensor& y, const Tensor& x0, const Tensor& x1, const Tensor& w, const Tensor& b, const ConvParams& p) {
  if (y.dtype() != DType::f32) return false;
  const std::int64_t c0 = x0.shape().c(), c1 = x1.defined() ? x1.shape().c() : 0;
  Part parts[2] = {{writable(x0), 0, c0, false, nullptr}, {writable(x1), c0, c1, true, nullptr}};
  if (!plan_all(ex, ConvProblem::Pass::forward, x0.shape(), y.shape(), w.shape(), p, parts)) return false;
  const Space space = reserve(ex, w.shape(), parts);
  for (const Part& part : parts) {
    if (!part.data) continue;
    pack(ex, space.packed, w, part);
    run(ex, part, part.data, space.packed, y.data<float>(), space.workspace);
  }
  finish(ex, y.data<float>(), data_or_null(b), p.activation, y.shape().n() * y.shape().voxels(), y.shape().c());
  return true;
}

bool library_backward_data(const Exec& ex, const Grad& dx0, const Grad& dx1, const Tensor& dy, const Tensor& w, const Tensor& b,
                           const ConvParams& p) {
  if (dy.dtype() != DType::f32) return false;
  const std::int64_t inputs = w.shape()[1], c1 = dx1.wanted() ? dx1.shape().c() : 0, c0 = dx0.wanted() ? dx0.shape().c() : inputs - c1;
  Part parts[2] = {{data_or_null(dx0), 0, c0, dx0.beta != 0.0f, nullptr}, {data_or_null(dx1), inputs - c1, c1, dx1.beta != 0.0f, nullptr}};
  const Shape& x = dx0.wanted() ? dx0.shape() : dx1.shape();
  if (!plan_all(ex, ConvProblem::Pass::data, x, dy.shape(), w.shape(), p, parts)) return false;
  const Space space = reserve(ex, w.shape(), parts);
  for (const Part& part : parts) {
    if (!part.data) continue;
    pack(ex, space.packed, w, part);
    run(ex, part, part.data, space.packed, writable(dy), space.workspace);
    finish(ex, part.data, b.defined() ? b.data<float>() + part.first : nullptr, Activation{}, x.n() * x.voxels(), part.count);
  }
  return true;
}

bool library_backward_weight(const Exec& ex, const Grad& dw, const Tensor& dy, const Tensor& x0, const Tensor& x1, const ConvParams& p) {
  if (dy.dtype() != DType::f32) return false;
  const std::int64_t c0 = x0.shape().c(), c1 = x1.defined() ? x1.shape().c() : 0;
  Part parts[2] = {{writable(x0), 0, c0, false, nullptr}, {writable(x1), c0, c1, false, nullptr}};
  if (!plan_all(ex, ConvProblem::Pass::weight, x0.shape(), dy.shape(), dw.shape(), p, parts)) return false;
  const Space space = reserve(ex, dw.shape(), parts);
  const int taps = taps_of(dw.shape());
  for (const Part& part : parts) {
    if (!part.data) continue;
    run(ex, part, part.data, space.packed, writable(dy), space.workspace);
    const std::int64_t n = dw.shape()[0] * taps * part.count;
    VG_LAUNCH(ex, library_unpack_kernel, flat_blocks(n, false), kThreads, 0, dw.data(), space.packed, dw.beta, taps,
              static_cast<int>(dw.shape()[1]), static_cast<int>(part.first), static_cast<int>(part.count), n);
  }
  return true;
}

}  // namespace gpu
}  // namespace vg
#endif
