// cuDNN's convolutions behind conv_library.h, through its graph interface: describe the operation, ask the heuristics for ways to compute it, drop those
// that break our rules (order of sums, rounding, workspace), and take the first one that can be finalised: finalising is how cuDNN says "supported".
// cuDNN is opened when it is first wanted and never linked. Source: cuDNN backend API reference, "Use cases"; header cudnn_graph_v9.h.
#include "kernels/cuda/library.h"
#include "kernels/cuda/nvidia.h"

#if __has_include(<cudnn_graph.h>)
#include <cuda_runtime.h>
#include <cudnn_graph.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

namespace vg::gpu {
namespace {

// The functions that are used, under cuDNN's own names.
struct Table {
  decltype(&::cudnnGetVersion) get_version;
  decltype(&::cudnnGetCudartVersion) get_cudart_version;
  decltype(&::cudnnGetErrorString) get_error_string;
  decltype(&::cudnnCreate) create;
  decltype(&::cudnnSetStream) set_stream;
  decltype(&::cudnnBackendCreateDescriptor) create_descriptor;
  decltype(&::cudnnBackendDestroyDescriptor) destroy_descriptor;
  decltype(&::cudnnBackendSetAttribute) set_attribute;
  decltype(&::cudnnBackendGetAttribute) get_attribute;
  decltype(&::cudnnBackendFinalize) finalize;
  decltype(&::cudnnBackendExecute) execute;
};
Table table;

struct Failure {
  cudnnStatus_t status;
};
void check(cudnnStatus_t status) {
  if (status != CUDNN_STATUS_SUCCESS) throw Failure{status};
}

class Descriptor {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type) { check(table.create_descriptor(type, &descriptor_)); }
  ~Descriptor() {
    if (descriptor_) table.destroy_descriptor(descriptor_);
  }
  Descriptor(Descriptor&& other) noexcept : descriptor_(std::exchange(other.descriptor_, nullptr)) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  template <class T>
  Descriptor& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, const T* values, std::int64_t count) {
    check(table.set_attribute(descriptor_, name, type, count, values));
    return *this;
  }
  template <class T>
  Descriptor& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, const T& value) {
    return set(name, type, &value, 1);
  }
  Descriptor& set(cudnnBackendAttributeName_t name, const Descriptor& value) {
    return set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, value.descriptor_);
  }
  Descriptor& set_all(cudnnBackendAttributeName_t name, const std::vector<Descriptor>& values) {
    std::vector<cudnnBackendDescriptor_t> raw;
    for (const Descriptor& d : values) raw.push_back(d.descriptor_);
    return set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, raw.data(), static_cast<std::int64_t>(raw.size()));
  }
  Descriptor& set(cudnnBackendAttributeName_t name, const std::vector<std::int64_t>& values) {
    return set(name, CUDNN_TYPE_INT64, values.data(), static_cast<std::int64_t>(values.size()));
  }
  Descriptor& finish() {
    check(table.finalize(descriptor_));
    return *this;
  }
  cudnnBackendDescriptor_t get() const { return descriptor_; }

 private:
  cudnnBackendDescriptor_t descriptor_ = nullptr;
};

constexpr std::int64_t kX = 'x', kW = 'w', kY = 'y', kBias = 'b', kSum = 's', kBiased = 't';  // the last two are virtual: never in memory

// Axes with one voxel and one tap all along say nothing; a picture is 2-D to cuDNN, which has more algorithms for those.
std::vector<int> axes_of(const ConvProblem& p) {
  if (p.in[0] == 1 && p.out[0] == 1 && p.kernel[0] == 1 && p.pad[0] == 0) return {1, 2};
  return {0, 1, 2};
}

cudnnDataType_t type_of(DType t) { return t == DType::bf16 ? CUDNN_DATA_BFLOAT16 : t == DType::f16 ? CUDNN_DATA_HALF : CUDNN_DATA_FLOAT; }

// (first, channels, axes...) in cuDNN's order of dimensions, channels last in memory.
Descriptor tensor(std::int64_t id, cudnnDataType_t type, std::int64_t first, std::int64_t channels, const std::vector<std::int64_t>& axes) {
  std::vector<std::int64_t> extents = {first, channels}, strides = {0, 1};
  extents.insert(extents.end(), axes.begin(), axes.end());
  strides.resize(extents.size());
  std::int64_t stride = channels;
  for (std::size_t i = extents.size(); i-- > 2;) strides[i] = stride, stride *= extents[i];
  strides[0] = stride;
  Descriptor t(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  t.set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, type).set(CUDNN_ATTR_TENSOR_DIMENSIONS, extents);
  t.set(CUDNN_ATTR_TENSOR_STRIDES, strides).set(CUDNN_ATTR_TENSOR_UNIQUE_ID, {id}).set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, {std::int64_t{16}});
  t.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, id == kSum || id == kBiased);
  return std::move(t.finish());
}

// Our activations as cuDNN calls them.
std::optional<cudnnPointwiseMode_t> mode_of(ActivationKind kind) {
  switch (kind) {
    case ActivationKind::relu:
    case ActivationKind::leaky_relu: return CUDNN_POINTWISE_RELU_FWD;
    case ActivationKind::elu: return CUDNN_POINTWISE_ELU_FWD;
    case ActivationKind::gelu: return CUDNN_POINTWISE_GELU_FWD;
    case ActivationKind::gelu_tanh: return CUDNN_POINTWISE_GELU_APPROX_TANH_FWD;
    case ActivationKind::silu: return CUDNN_POINTWISE_SWISH_FWD;
    case ActivationKind::sigmoid: return CUDNN_POINTWISE_SIGMOID_FWD;
    case ActivationKind::identity:
    case ActivationKind::prelu: break;
  }
  return std::nullopt;
}

// y = mode(x), or x + b with b. alpha: of leaky_relu and elu.
Descriptor pointwise(cudnnPointwiseMode_t mode, const Descriptor& x, const Descriptor* b, const Descriptor& y, float alpha = 0.0f) {
  Descriptor function(CUDNN_BACKEND_POINTWISE_DESCRIPTOR), operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  function.set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, mode);
  function.set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
  function.set(CUDNN_ATTR_POINTWISE_NAN_PROPAGATION, CUDNN_TYPE_NAN_PROPOGATION, CUDNN_PROPAGATE_NAN);  // training must see that it went wrong
  if (mode == CUDNN_POINTWISE_RELU_FWD) function.set(CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP_SLOPE, CUDNN_TYPE_DOUBLE, static_cast<double>(alpha));
  if (mode == CUDNN_POINTWISE_ELU_FWD) function.set(CUDNN_ATTR_POINTWISE_ELU_ALPHA, CUDNN_TYPE_DOUBLE, static_cast<double>(alpha));
  function.finish();
  operation.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, function).set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
  if (b) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, *b);
  return std::move(operation.set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y).finish());
}

// The names of one attribute in the three kinds of operation.
struct Operation {
  cudnnBackendDescriptorType_t type;
  cudnnBackendAttributeName_t x, w, y, convolution, alpha, beta;
};
constexpr Operation kOperations[] = {
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA}};

// The operations: the convolution, and what bias and activation add to it (the sum is a float all along). cuDNN keeps what it needs of the parts; they may
// die with this call.
std::vector<Descriptor> operations_of(const ConvProblem& p) {
  std::vector<std::int64_t> in, out, kernel, stride, dilation, before, after;
  for (const int a : axes_of(p)) {
    in.push_back(p.in[a]), out.push_back(p.out[a]), kernel.push_back(p.kernel[a]);
    stride.push_back(p.stride[a]), dilation.push_back(p.dilation[a]), before.push_back(p.pad[a]);
    const std::int64_t reach = (p.out[a] - 1) * p.stride[a] + std::int64_t{p.dilation[a]} * (p.kernel[a] - 1) + 1;
    after.push_back(std::max<std::int64_t>(0, reach - p.pad[a] - p.in[a]));
  }
  const auto axes = static_cast<std::int64_t>(in.size());
  Descriptor convolution(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  convolution.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
  convolution.set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, CUDNN_CROSS_CORRELATION);
  convolution.set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, axes).set(CUDNN_ATTR_CONVOLUTION_DILATIONS, dilation);
  convolution.set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, stride).set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, before);
  convolution.set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, after).finish();

  const bool forward = p.pass == ConvProblem::Pass::forward, data = p.pass == ConvProblem::Pass::data;
  const std::int64_t channels = data ? p.inputs : p.outputs;  // of the result, if it has a tail
  const std::vector<std::int64_t>& extents = data ? in : out;
  const auto result = [&](std::int64_t id) { return tensor(id, CUDNN_DATA_FLOAT, p.samples, channels, extents); };
  const Descriptor x = tensor(kX, type_of(p.type), p.samples, p.inputs, in), w = tensor(kW, type_of(p.w_type), p.outputs, p.inputs, kernel),
                   y = tensor(kY, type_of(p.type), p.samples, p.outputs, out), sum = result(kSum);
  const Operation& names = kOperations[static_cast<int>(p.pass)];
  std::vector<Descriptor> all;
  Descriptor& operation = all.emplace_back(names.type);
  operation.set(names.x, data && fused(p) ? sum : x).set(names.w, w).set(names.y, forward && fused(p) ? sum : y).set(names.convolution, convolution);
  operation.set(names.alpha, CUDNN_TYPE_FLOAT, 1.0f).set(names.beta, CUDNN_TYPE_FLOAT, p.add ? 1.0f : 0.0f).finish();
  if (!fused(p)) return all;

  const Descriptor& last = data ? x : y;
  const std::optional<cudnnPointwiseMode_t> mode = mode_of(p.activation);
  const Descriptor biased = result(kBiased);
  if (p.bias) {
    const Descriptor b = tensor(kBias, CUDNN_DATA_FLOAT, 1, channels, std::vector<std::int64_t>(in.size(), 1));
    all.push_back(pointwise(CUDNN_POINTWISE_ADD, sum, &b, mode ? biased : last));
  }
  if (mode) all.push_back(pointwise(*mode, p.bias ? biased : sum, nullptr, last, p.alpha));
  return all;
}

Descriptor graph_of(const ConvProblem& p, cudnnHandle_t handle) {
  Descriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  graph.set_all(CUDNN_ATTR_OPERATIONGRAPH_OPS, operations_of(p)).set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, handle);
  return std::move(graph.finish());
}

std::vector<Descriptor> configurations(const Descriptor& graph, cudnnBackendHeurMode_t mode) {
  Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph).set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, mode).finish();
  std::int64_t count = 0;
  check(table.get_attribute(heuristics.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &count, nullptr));
  std::vector<Descriptor> all;
  std::vector<cudnnBackendDescriptor_t> raw;
  for (std::int64_t i = 0; i < count; ++i) all.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR), raw.push_back(all.back().get());
  std::int64_t given = 0;
  check(table.get_attribute(heuristics.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, count, &given, raw.data()));
  while (static_cast<std::int64_t>(all.size()) > given) all.pop_back();
  return all;
}

// Does the engine keep our rules? On float data tensor cores mean tf32, 10 bits of mantissa, which somebody must have asked for; halves are what they are
// for, but sums of halves must not be halves, nor what Winograd and Fourier transforms make of them.
bool allowed(const Descriptor& configuration, const ConvProblem& p, std::int64_t* index) {
  Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  cudnnBackendDescriptor_t raw = engine.get();
  const bool half = p.type != DType::f32;
  std::int64_t count = 0;
  check(table.get_attribute(configuration.get(), CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &raw));
  check(table.get_attribute(engine.get(), CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &count, index));
  cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
  check(table.get_attribute(engine.get(), CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes));
  for (std::int64_t i = 0; i < count; ++i) {
    switch (notes[i]) {
      case CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION: return false;
      case CUDNN_NUMERICAL_NOTE_TENSOR_CORE:
        if (!half && !p.tf32) return false;
        break;
      case CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS:
        if (!p.tf32) return false;
        break;
      case CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC:
        if (!p.nondeterministic) return false;
        break;
      case CUDNN_NUMERICAL_NOTE_FFT:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13:
        if (p.exact || half) return false;
        break;
      default: break;
    }
  }
  return true;
}

// A handle serves one stream at a time.
struct Handle {
  std::mutex mutex;
  cudnnHandle_t handle = nullptr;
};

class CudnnPlan : public ConvPlan {
 public:
  CudnnPlan(Handle& handle, Descriptor plan) : handle_(handle), plan_(std::move(plan)) {}
  const char* run(void* x, void* w, void* y, const float* bias, void* space, void* stream) override {
    try {
      const std::int64_t ids[] = {kX, kW, kY, kBias}, count = bias ? 4 : 3;
      void* const data[] = {x, w, y, const_cast<float*>(bias)};
      Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
      pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, ids, count);
      pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, data, count);
      pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, workspace ? space : nullptr).finish();
      const std::lock_guard lock(handle_.mutex);
      check(table.set_stream(handle_.handle, static_cast<cudaStream_t>(stream)));
      check(table.execute(handle_.handle, plan_.get(), pack.get()));
      return nullptr;
    } catch (const Failure& f) {
      return table.get_error_string(f.status);
    }
  }

 private:
  Handle& handle_;
  Descriptor plan_;
};

class Cudnn : public ConvLibrary {
 public:
  explicit Cudnn(std::string path) : path_(std::move(path)) {}
  std::string name() const override {
    const std::size_t v = table.get_version();
    return "cuDNN " + std::to_string(v / 10000) + "." + std::to_string(v / 100 % 100) + "." + std::to_string(v % 100) + " (" + path_ + ")";
  }

  std::unique_ptr<ConvPlan> plan(const ConvProblem& p, std::size_t most_workspace) override {
    if (p.activation == ActivationKind::prelu) return nullptr;
    try {
      Handle& handle = handle_of(p.device);
      const Descriptor graph = graph_of(p, handle.handle);
      for (const cudnnBackendHeurMode_t mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK})
        for (const Descriptor& configuration : configurations(graph, mode))
          if (auto plan = plan_of(p, handle, configuration, most_workspace)) return plan;
    } catch (const Failure&) {  // cuDNN cannot even describe it
    }
    return nullptr;
  }

 private:
  Handle& handle_of(int device) {
    Handle& h = handles_[device];
    if (!h.handle) check(table.create(&h.handle));
    return h;
  }

  static std::unique_ptr<ConvPlan> plan_of(const ConvProblem& p, Handle& handle, const Descriptor& configuration, std::size_t most_workspace) {
    try {
      std::int64_t engine = -1;
      if (!allowed(configuration, p, &engine)) return nullptr;
      Descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
      plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, handle.handle).set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configuration).finish();
      std::int64_t bytes = 0, count = 0;
      check(table.get_attribute(plan.get(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count, &bytes));
      if (static_cast<std::size_t>(bytes) > most_workspace) return nullptr;
      auto ready = std::make_unique<CudnnPlan>(handle, std::move(plan));
      ready->workspace = static_cast<std::size_t>(bytes);
      ready->name = "cuDNN engine " + std::to_string(engine) + (fused(p) ? ", bias and activation included" : "");
      return ready;
    } catch (const Failure&) {  // not this one
      return nullptr;
    }
  }

  std::string path_;
  std::map<int, Handle> handles_;  // kept to the end of the process
};

}  // namespace

std::unique_ptr<ConvLibrary> open_cudnn(std::string* why_not) {
  const auto to = [](auto& function) { return reinterpret_cast<void**>(&function); };
  const std::vector<Symbol> symbols = {{"cudnnGetVersion", to(table.get_version)},
                                       {"cudnnGetCudartVersion", to(table.get_cudart_version)},
                                       {"cudnnGetErrorString", to(table.get_error_string)},
                                       {"cudnnCreate", to(table.create)},
                                       {"cudnnSetStream", to(table.set_stream)},
                                       {"cudnnBackendCreateDescriptor", to(table.create_descriptor)},
                                       {"cudnnBackendDestroyDescriptor", to(table.destroy_descriptor)},
                                       {"cudnnBackendSetAttribute", to(table.set_attribute)},
                                       {"cudnnBackendGetAttribute", to(table.get_attribute)},
                                       {"cudnnBackendFinalize", to(table.finalize)},
                                       {"cudnnBackendExecute", to(table.execute)}};
  void* handle = nullptr;
  std::string path;
  *why_not = open_library({"cuDNN 9", "libcudnn.so.9", "VG_CUDNN_DIR", {"cudnn"}}, symbols, &handle, &path);
  if (!handle) return nullptr;
  const std::size_t version = table.get_version(), cuda = table.get_cudart_version();
  if (version / 10000 != 9 || cuda / 1000 != CUDART_VERSION / 1000) {
    *why_not = path + ": cuDNN version " + std::to_string(version) + " for CUDA " + std::to_string(cuda / 1000) + " (wanted cuDNN 9 for CUDA " +
               std::to_string(CUDART_VERSION / 1000) + ")";
    return nullptr;
  }
  return std::make_unique<Cudnn>(path);
}

}  // namespace vg::gpu
#else
namespace vg::gpu {

std::unique_ptr<ConvLibrary> open_cudnn(std::string* why_not) {
  *why_not = "no cuDNN: this build was made without its headers";
  return nullptr;
}

}  // namespace vg::gpu
#endif
