// Convolutions of one voxel (kernel 1, stride 1) are matrix products, and cuBLASLt computes those. Its matrices are column-major: our (M, C) in rows is its
// C x M in columns, so every product is asked for transposed. Source: cuBLAS documentation, "cublasLt API"; header cublasLt.h.
#include "kernels/cuda/library.h"
#include "kernels/cuda/nvidia.h"

#if __has_include(<cublasLt.h>)
#include <cublasLt.h>

#include <map>
#include <mutex>
#include <optional>
#include <utility>

namespace vg::gpu {
namespace {

struct Table {
  decltype(&::cublasLtGetVersion) get_version;
  decltype(&::cublasLtGetStatusString) get_status_string;
  decltype(&::cublasLtCreate) create;
  decltype(&::cublasLtMatmulDescCreate) create_product;
  decltype(&::cublasLtMatmulDescDestroy) destroy_product;
  decltype(&::cublasLtMatmulDescSetAttribute) set_product;
  decltype(&::cublasLtMatrixLayoutCreate) create_matrix;
  decltype(&::cublasLtMatrixLayoutDestroy) destroy_matrix;
  decltype(&::cublasLtMatmulPreferenceCreate) create_preference;
  decltype(&::cublasLtMatmulPreferenceDestroy) destroy_preference;
  decltype(&::cublasLtMatmulPreferenceSetAttribute) set_preference;
  decltype(&::cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&::cublasLtMatmul) multiply;
};
Table table;

struct Failure {};
void check(cublasStatus_t status) {
  if (status != CUBLAS_STATUS_SUCCESS) throw Failure{};
}

// A handle of the library and the function that ends it.
template <class T>
class Owned {
 public:
  Owned(T handle, cublasStatus_t (*destroy)(T)) : handle_(handle), destroy_(destroy) {}
  ~Owned() {
    if (handle_) destroy_(handle_);
  }
  Owned(Owned&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)), destroy_(other.destroy_) {}
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  T get() const { return handle_; }

 private:
  T handle_;
  cublasStatus_t (*destroy_)(T);
};

cudaDataType_t type_of(DType t) { return t == DType::bf16 ? CUDA_R_16BF : t == DType::f16 ? CUDA_R_16F : CUDA_R_32F; }

Owned<cublasLtMatrixLayout_t> matrix(DType type, std::int64_t rows, std::int64_t columns) {
  cublasLtMatrixLayout_t layout = nullptr;
  check(table.create_matrix(&layout, type_of(type), static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(columns), rows));
  return {layout, table.destroy_matrix};
}

// What follows the sum, as cuBLASLt calls it; its GELU is the one by tanh. Its bias has the type of the result, ours is f32: halves get none here. Whether its
// ReLU keeps NaN is said nowhere: training must see that it went wrong, so that ReLU is not used.
std::optional<cublasLtEpilogue_t> epilogue_of(const ConvProblem& p) {
  if (p.bias && p.type != DType::f32) return std::nullopt;
  switch (p.activation) {
    case ActivationKind::identity: return p.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    case ActivationKind::gelu_tanh: return p.bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
    default: return std::nullopt;
  }
}

Owned<cublasLtMatmulDesc_t> product(const ConvProblem& p) {
  cublasLtMatmulDesc_t description = nullptr;
  check(table.create_product(&description, p.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F));
  Owned<cublasLtMatmulDesc_t> owned(description, table.destroy_product);
  const cublasOperation_t a = p.pass == ConvProblem::Pass::forward ? CUBLAS_OP_T : CUBLAS_OP_N,
                          b = p.pass == ConvProblem::Pass::weight ? CUBLAS_OP_T : CUBLAS_OP_N;
  check(table.set_product(description, CUBLASLT_MATMUL_DESC_TRANSA, &a, sizeof a));
  check(table.set_product(description, CUBLASLT_MATMUL_DESC_TRANSB, &b, sizeof b));
  const std::optional<cublasLtEpilogue_t> epilogue = epilogue_of(p);
  if (!epilogue) throw Failure{};
  check(table.set_product(description, CUBLASLT_MATMUL_DESC_EPILOGUE, &*epilogue, sizeof *epilogue));
  return owned;
}

constexpr std::uint32_t kAlignment = 16;  // bytes; what conv_library.cu promises

// C = A B (+ C), where, with x: I x M, w: I x O, y: O x M in columns,
//   forward  y = w^T x       data  x = w y       weight  w = x y^T
class CublasPlan : public ConvPlan {
 public:
  CublasPlan(cublasLtHandle_t handle, const ConvProblem& p, std::size_t most_workspace)
      : handle_(handle),
        pass_(p.pass),
        beta_(p.add ? 1.0f : 0.0f),
        x_(matrix(p.type, p.inputs, voxels(p))),
        w_(matrix(p.w_type, p.inputs, p.outputs)),
        y_(matrix(p.type, p.outputs, voxels(p))),
        product_(product(p)) {
    if (p.bias) {
      const auto aligned = std::uintptr_t{kAlignment};  // never followed here: the heuristics ask how it is aligned
      check(table.set_product(product_.get(), CUBLASLT_MATMUL_DESC_BIAS_POINTER, &aligned, sizeof aligned));
    }
    cublasLtMatmulPreference_t raw = nullptr;
    check(table.create_preference(&raw));
    const Owned<cublasLtMatmulPreference_t> preference(raw, table.destroy_preference);
    check(table.set_preference(raw, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most_workspace, sizeof most_workspace));
    for (const auto which : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                             CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      check(table.set_preference(raw, which, &kAlignment, sizeof kAlignment));
    // "In place" lets pieces of a sum add to the result in the order of their arrival. Pieces of a sum of halves must not be halves, there or elsewhere.
    std::uint32_t schemes = p.type == DType::f32 ? CUBLASLT_REDUCTION_SCHEME_MASK : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    if (!p.nondeterministic) schemes &= ~std::uint32_t{CUBLASLT_REDUCTION_SCHEME_INPLACE};
    check(table.set_preference(raw, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes));
    cublasLtMatmulHeuristicResult_t best{};
    int found = 0;
    const auto [a, b, c] = matrices();
    check(table.heuristic(handle_, product_.get(), a, b, c, c, raw, 1, &best, &found));
    if (found == 0 || best.state != CUBLAS_STATUS_SUCCESS) throw Failure{};
    algorithm_ = best.algo;
    workspace = best.workspaceSize;
    name = fused(p) ? "cuBLASLt, bias and activation included" : "cuBLASLt";
  }

  const char* run(void* x, void* w, void* y, const float* bias, void* space, void* stream) override {
    const bool forward = pass_ == ConvProblem::Pass::forward, data = pass_ == ConvProblem::Pass::data;
    const void *a = forward || data ? w : x, *b = forward ? x : y;
    void* c = forward ? y : data ? x : w;
    const float one = 1.0f;
    const std::lock_guard lock(mutex_);
    if (bias && table.set_product(product_.get(), CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias) != CUBLAS_STATUS_SUCCESS)
      return "the bias is refused";
    const auto [ma, mb, mc] = matrices();
    const cublasStatus_t status = table.multiply(handle_, product_.get(), &one, a, ma, b, mb, &beta_, c, mc, c, mc, &algorithm_, space, workspace,
                                                 static_cast<cudaStream_t>(stream));
    return status == CUBLAS_STATUS_SUCCESS ? nullptr : table.get_status_string(status);
  }

 private:
  struct Matrices {
    cublasLtMatrixLayout_t a, b, c;
  };
  Matrices matrices() const {
    switch (pass_) {
      case ConvProblem::Pass::forward: return {w_.get(), x_.get(), y_.get()};
      case ConvProblem::Pass::data: return {w_.get(), y_.get(), x_.get()};
      default: return {x_.get(), y_.get(), w_.get()};
    }
  }
  static std::int64_t voxels(const ConvProblem& p) { return p.samples * p.in[0] * p.in[1] * p.in[2]; }

  cublasLtHandle_t handle_;
  ConvProblem::Pass pass_;
  float beta_;
  Owned<cublasLtMatrixLayout_t> x_, w_, y_;
  Owned<cublasLtMatmulDesc_t> product_;  // names the bias, so it serves one caller at a time
  std::mutex mutex_;
  cublasLtMatmulAlgo_t algorithm_{};
};

class Cublas : public ConvLibrary {
 public:
  explicit Cublas(std::string path) : path_(std::move(path)) {}
  std::string name() const override {
    const std::size_t v = table.get_version();
    return "cuBLASLt " + std::to_string(v / 10000) + "." + std::to_string(v / 100 % 100) + "." + std::to_string(v % 100) + " (" + path_ + ")";
  }
  std::unique_ptr<ConvPlan> plan(const ConvProblem& p, std::size_t most_workspace) override {
    for (int a = 0; a < 3; ++a)
      if (p.kernel[a] != 1 || p.stride[a] != 1 || p.pad[a] != 0 || p.in[a] != p.out[a]) return nullptr;
    try {
      cublasLtHandle_t& handle = handles_[p.device];
      if (!handle) check(table.create(&handle));
      return std::make_unique<CublasPlan>(handle, p, most_workspace);
    } catch (const Failure&) {
      return nullptr;
    }
  }

 private:
  std::string path_;
  std::map<int, cublasLtHandle_t> handles_;  // kept to the end of the process
};

}  // namespace

std::unique_ptr<ConvLibrary> open_cublaslt(std::string* why_not) {
  const auto to = [](auto& function) { return reinterpret_cast<void**>(&function); };
  const std::vector<Symbol> symbols = {{"cublasLtGetVersion", to(table.get_version)},
                                       {"cublasLtGetStatusString", to(table.get_status_string)},
                                       {"cublasLtCreate", to(table.create)},
                                       {"cublasLtMatmulDescCreate", to(table.create_product)},
                                       {"cublasLtMatmulDescDestroy", to(table.destroy_product)},
                                       {"cublasLtMatmulDescSetAttribute", to(table.set_product)},
                                       {"cublasLtMatrixLayoutCreate", to(table.create_matrix)},
                                       {"cublasLtMatrixLayoutDestroy", to(table.destroy_matrix)},
                                       {"cublasLtMatmulPreferenceCreate", to(table.create_preference)},
                                       {"cublasLtMatmulPreferenceDestroy", to(table.destroy_preference)},
                                       {"cublasLtMatmulPreferenceSetAttribute", to(table.set_preference)},
                                       {"cublasLtMatmulAlgoGetHeuristic", to(table.heuristic)},
                                       {"cublasLtMatmul", to(table.multiply)}};
  void* handle = nullptr;
  std::string path;
  const std::string major = std::to_string(CUBLAS_VER_MAJOR);
  *why_not = open_library({"cuBLASLt " + major, "libcublasLt.so." + major, "VG_CUBLAS_DIR", {"cu" + major, "cublas"}}, symbols, &handle, &path);
  if (!handle) return nullptr;
  if (table.get_version() / 10000 != CUBLAS_VER_MAJOR) {
    *why_not = path + ": cuBLASLt version " + std::to_string(table.get_version()) + " (wanted " + major + ")";
    return nullptr;
  }
  return std::make_unique<Cublas>(path);
}

}  // namespace vg::gpu
#else
namespace vg::gpu {

std::unique_ptr<ConvLibrary> open_cublaslt(std::string* why_not) {
  *why_not = "no cuBLASLt: this build was made without its headers";
  return nullptr;
}

}  // namespace vg::gpu
#endif
