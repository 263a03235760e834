// The programs with --device cuda, whole, on the fake CUDA runtime: the same bits as sim, close to cpu, nothing for the strict runtime to find, and
// words that help when a kernel breaks.
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "layers/model_file.h"
#include "nifti/volume.h"
#include "tests/layers/files.h"
#include "tests/tools/process.h"

namespace vg::test {
namespace {

namespace fs = std::filesystem;

struct Setting {
  Setting(const char* name, const std::string& value) : name(name) { ::setenv(name, value.c_str(), 1); }
  ~Setting() { ::unsetenv(name); }
  const char* name;
};

class CudaPrograms : public testing::Test {
 protected:
  CudaPrograms() { configure(R"("patch": [8, 8, 12],)"); }
  // Patches of all kinds: copied, mirrored, turned, bent, brightened, noisy.
  void configure(const std::string& patch) const {
    put_bytes(folder_ / "c.json", R"({"network": {"features": [4, 6, 8], "deep_supervision": 1}, "batch": 2, "seed": 5, "steps": 4, )" + patch + R"("augment":
        {"flip": true, "intensity": 0.5, "noise": 0.5, "affine": 0.4, "elastic": 0.4, "elastic_spacing": 6, "elastic_magnitude": 2.4}})");
  }
  Result train(const std::string& device, const std::string& name, const Words& more = {}) const {
    Words a = {"--phantom", "--phantoms", "4", "--grid", "16", "12", "16", "--spacing", "0", "--config", folder_ / "c.json", "-q", "-o", folder_ / name, "--device", device};
    a.insert(a.end(), more.begin(), more.end());
    return run("segtrain", a);
  }
  std::string bits(const std::string& name) const { return bytes_of(folder_ / name); }
  Folder folder_;
  Setting plugin_{"VG_CUDA_PLUGIN", std::string(VG_BIN_DIR) + "/libvoxgrad_cuda_fake.so"};
};

// The largest difference of two tensors of one shape.
float difference(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(a.shape(), b.shape());
  float most = 0.0f;
  for (std::int64_t i = 0; i < a.elements(); ++i) most = std::max(most, std::fabs(a.data<float>()[i] - b.data<float>()[i]));
  return most;
}

TEST_F(CudaPrograms, TrainAndSegment) {
  for (const char* device : {"cpu", "sim", "cuda"}) {
    const Result r = train(device, device);
    ASSERT_EQ(r.code, 0) << device << ": " << r.err;
  }
  {
    // Every tensor its own buffer, which dies with it.
    const Setting strict("VG_CUDA_FAKE", "strict"), fresh("VG_MEMORY_CACHE", "0");
    const Result r = train("cuda", "strict");
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(r.err, "");
  }
  const std::string wanted = bits("sim/last.safetensors");
  EXPECT_GT(wanted.size(), 1000u);
  EXPECT_TRUE(bits("cuda/last.safetensors") == wanted);
  EXPECT_TRUE(bits("strict/last.safetensors") == wanted);
  const Model on_cuda = read_model(folder_ / "cuda/last.safetensors"), on_cpu = read_model(folder_ / "cpu/last.safetensors");
  ASSERT_EQ(on_cuda.weights.size(), on_cpu.weights.size());
  for (std::size_t i = 0; i < on_cuda.weights.size(); ++i)
    EXPECT_LE(difference(on_cuda.weights[i].second, on_cpu.weights[i].second), 1e-4f) << on_cuda.weights[i].first;

  ASSERT_EQ(run("segphantom", {"-o", folder_ / "heads", "-n", "1", "--size", "20x24x16", "--spacing", "0", "-q"}).code, 0);
  const auto segment = [&](const std::string& device, const std::string& name) {
    const Result r = run("seginfer", {"-i", folder_ / "heads/imagesTr/case_000_0000.nii.gz", "-o", folder_ / (name + ".nii.gz"), "--conf", folder_ / (name + "_conf.nii.gz"), "-m",
                                      folder_ / "sim/best.safetensors", "-d", device, "-q"});
    EXPECT_EQ(r.code, 0) << name << ": " << r.err;
    EXPECT_EQ(r.err, "");
  };
  for (const char* device : {"cpu", "sim", "cuda"}) segment(device, std::string("labels_") + device);
  {
    const Setting strict("VG_CUDA_FAKE", "strict"), fresh("VG_MEMORY_CACHE", "0");
    segment("cuda", "labels_strict");
  }
  EXPECT_TRUE(bits("labels_cuda.nii.gz") == bits("labels_sim.nii.gz"));
  EXPECT_TRUE(bits("labels_strict.nii.gz") == bits("labels_sim.nii.gz"));
  EXPECT_TRUE(bits("labels_cuda_conf.nii.gz") == bits("labels_sim_conf.nii.gz"));
  EXPECT_LE(difference(read_volume(folder_ / "labels_cuda_conf.nii.gz").voxels, read_volume(folder_ / "labels_cpu_conf.nii.gz").voxels), 1e-4f);
}

// A kernel that breaks is named with its shape where that can be known; the program ends with exit code 1, and nothing that is torn down has more to say.
TEST_F(CudaPrograms, ABrokenKernelIsNamed) {
  const Setting broken("VG_CUDA_FAKE", "fail=conv_pack_kernel:2");
  const std::string fault = "an illegal memory access was encountered; this process can no longer use the GPU";
  const Result late = train("cuda", "late");
  EXPECT_EQ(late.code, 1);
  // Found by the next copy, or allocation where freed memory is not kept (address sanitizer).
  EXPECT_TRUE(contains(late.err, "cuda:0: copy failed: one of ") || contains(late.err, "in use (one of ")) << late.err;
  EXPECT_TRUE(contains(late.err, fault + " (CUDA_LAUNCH_BLOCKING=1 tells which kernel)")) << late.err;
  EXPECT_EQ(std::count(late.err.begin(), late.err.end(), '\n'), 1) << late.err;
  const Setting blocking("CUDA_LAUNCH_BLOCKING", "1");
  const Result at_once = train("cuda", "at_once");
  EXPECT_EQ(at_once.code, 1);
  EXPECT_TRUE(contains(at_once.err, "segtrain: node input_block.conv2.conv: kernel conv_pack_kernel, grid ")) << at_once.err;
  EXPECT_TRUE(contains(at_once.err, ", block 256 x 1 x 1: " + fault + "\n")) << at_once.err;
}

// GPUs of compute capability 7.5 multiply f16 alone, and say so.
TEST_F(CudaPrograms, AnOldGpuRefusesBf16) {
  const Setting old("VG_CUDA_FAKE", "capability=75");
  const Result refused = train("cuda", "bf16", {"--precision", "bf16", "--steps", "1"});
  EXPECT_EQ(refused.code, 1);
  EXPECT_TRUE(contains(refused.err, "conv_forward: bf16 needs compute capability 8.0, this GPU has 7.5 (f16 is what it multiplies)\n")) << refused.err;
  const Result done = train("cuda", "fp16", {"--precision", "fp16", "--steps", "1"});
  EXPECT_EQ(done.code, 0) << done.err;
}

// Batches go up while the step before is computed, from the second step on: what turned patches are made of in one piece, others as images and labels. The first step is launched kernel by kernel, the others are
// replays; two steps are an epoch, after which validation takes place and the step is recorded anew.
TEST_F(CudaPrograms, CopiesRunBesideKernelsAndStepsAreReplayed) {
  const Setting lazy("VG_CUDA_FAKE", "report");
  configure("");  // whole images: no windows in validation, which would be replayed, too
  const Result r = train("cuda", "report", {"--steps", "6"});
  EXPECT_EQ(r.code, 0);
  long long kernels = 0, copies = 0, beside = 0, replays = 0;
  ASSERT_EQ(std::sscanf(r.err.c_str(), "fake CUDA runtime: %lld kernels, %lld copies, %lld of them beside kernels, %lld replays", &kernels, &copies, &beside, &replays), 4)
      << r.err;
  EXPECT_EQ(replays, 5) << r.err;
#ifdef __SANITIZE_ADDRESS__  // freed memory is given back, and that waits for the kernels
  EXPECT_GE(beside, 1) << r.err;
#else
  EXPECT_GE(beside, 5) << r.err;
#endif
  EXPECT_LT(beside, copies);
}

TEST_F(CudaPrograms, TooLittleMemoryIsSaid) {
  const Setting small("VG_CUDA_FAKE", "memory=256K");
  const Result r = train("cuda", "small");
  EXPECT_EQ(r.code, 1);
  EXPECT_TRUE(contains(r.err, "cuda:0: cannot allocate ")) << r.err;
}

// The same network by the library: close to our kernels, and said on stderr; without the library, our kernels, or an error where it was demanded.
TEST_F(CudaPrograms, ConvolutionsByTheLibrary) {
  const Words cudnn = {"--conv", "cudnn"};
  const Setting strict("VG_CUDA_FAKE", "strict"), fresh("VG_MEMORY_CACHE", "0");
  ASSERT_EQ(train("cuda", "ours", {"--conv", "native"}).code, 0);
  ASSERT_EQ(train("cuda", "theirs", cudnn).code, 0);
  ASSERT_EQ(train("cuda", "auto").code, 0);
  EXPECT_FALSE(bits("theirs/last.safetensors") == bits("ours/last.safetensors")) << "nobody else computed it";
  EXPECT_TRUE(bits("auto/last.safetensors") == bits("ours/last.safetensors")) << "narrow layers stay with our kernels";
  const Model ours = read_model(folder_ / "ours/last.safetensors"), theirs = read_model(folder_ / "theirs/last.safetensors");
  for (std::size_t i = 0; i < ours.weights.size(); ++i) EXPECT_LE(difference(ours.weights[i].second, theirs.weights[i].second), 1e-5f) << ours.weights[i].first;

  const Words head = {"-i", folder_ / "heads/imagesTr/case_000_0000.nii.gz", "-o", folder_ / "l.nii.gz", "-m", folder_ / "ours/best.safetensors", "-d"};
  ASSERT_EQ(run("segphantom", {"-o", folder_ / "heads", "-n", "1", "--size", "20x24x16", "--spacing", "0", "-q"}).code, 0);
  const auto segment = [&](Words more) {
    more.insert(more.begin(), head.begin(), head.end());
    return run("seginfer", more);
  };
  EXPECT_TRUE(contains(segment({"cuda", "--conv", "cudnn"}).err, "convolution: fake library of convolutions\n"));
  EXPECT_EQ(segment({"cuda", "--conv", "cudnn", "--precision", "tf32", "-q"}).code, 0);
  const Setting absent("VG_FAKE_CONV_LIBRARY", "absent");
  EXPECT_TRUE(contains(segment({"cuda"}).err, "convolution: our kernels (no fake library of convolutions: VG_FAKE_CONV_LIBRARY says so)\n"));
  const Result demanded = segment({"cuda", "--conv", "cudnn"});
  EXPECT_EQ(demanded.code, 1);
  EXPECT_TRUE(contains(demanded.err, "seginfer: --conv cudnn: no fake library of convolutions")) << demanded.err;
  EXPECT_TRUE(contains(segment({"cpu", "--conv", "cudnn"}).err, "--conv cudnn: cuDNN is for GPUs, and the device is cpu"));
  EXPECT_EQ(segment({"cpu", "--conv", "mine"}).code, 2);
}

// tf32 and halves by the library: other bits than its fp32 and than our kernels, near them. tf32 is an error wherever nobody would compute it.
TEST_F(CudaPrograms, CoarserPrecisionsByTheLibrary) {
  const auto loss = [&](const char* precision, const char* conv) {
    const Result r = train("cuda", std::string(precision) + conv, {"--conv", conv, "--steps", "1", "--progress", "json", "--precision", precision});
    EXPECT_EQ(r.code, 0) << r.err;
    const nlohmann::json first = nlohmann::json::parse(r.out.substr(0, r.out.find('\n')));
    return first["loss"].get<double>();
  };
  const double fp32 = loss("fp32", "cudnn"), tf32 = loss("tf32", "cudnn"), bf16 = loss("bf16", "cudnn"), ours = loss("bf16", "native");
  EXPECT_NEAR(tf32, fp32, 1e-3 * fp32);
  EXPECT_NE(tf32, fp32) << "tf32 that rounds nothing was not tf32";
  EXPECT_NEAR(bf16, ours, 5e-3 * ours);
  EXPECT_NE(bf16, ours) << "nobody else computed it";
  const auto refused = [&](const std::string& device, const Words& more, const std::string& why) {
    Words all = {"--precision", "tf32", "--steps", "1"};
    all.insert(all.end(), more.begin(), more.end());
    const Result r = train(device, "refused", all);
    EXPECT_EQ(r.code, 1);
    EXPECT_TRUE(contains(r.err, "precision tf32 is computed by cuDNN " + why)) << r.err;
  };
  refused("cpu", {}, "on a GPU alone, and the device is cpu");
  refused("sim", {}, "on a GPU alone, and the device is sim");
  refused("cuda", {"--conv", "native"}, "alone, and convolutions are to be native: our kernels multiply f32 as fp32");
  const Result exact = train("cuda", "refused", {"--precision", "tf32", "--steps", "1", "--exact"});
  EXPECT_EQ(exact.code, 1);
  EXPECT_TRUE(contains(exact.err, "precision tf32 rounds more coarsely than the plain sum")) << exact.err;
  const Result segmented = run("seginfer", {"-i", "none.nii", "-o", folder_ / "l.nii.gz", "-m", folder_ / "tf32cudnn/last.safetensors", "-d", "cpu", "--precision", "tf32"});
  EXPECT_EQ(segmented.code, 1);
  EXPECT_TRUE(contains(segmented.err, "seginfer: precision tf32 is computed by cuDNN on a GPU alone")) << segmented.err;
  const Setting absent("VG_FAKE_CONV_LIBRARY", "absent");
  refused("cuda", {}, "alone: no fake library of convolutions");
}

// Both sides compute the same before anything is compared; the fake GPU is slow, but a GPU.
TEST_F(CudaPrograms, SpeedupComparesLikeWithLike) {
  const Result r = run("segbench", {"speedup", "--cases", "tiny", "-n", "1", "-q", "--json", "--svg", folder_ / "s.svg"});
  ASSERT_EQ(r.code, 0) << r.err;
  const nlohmann::json gpu = nlohmann::json::parse(r.out)["cases"][0]["gpu"];
  // tf32 takes the same narrow layers as fp32, so nothing is computed by the library: what counts is that it was run.
  const std::pair<const char*, double> wanted[] = {{"fp32", 1e-4}, {"tf32", 1e-4}, {"bf16", 2e-2}};
  const std::string svg = bits("s.svg");
  for (const auto& [name, allowed] : wanted) {
    ASSERT_TRUE(gpu.contains(name)) << r.out;
    EXPECT_GT(gpu[name]["speedup"].get<double>(), 0.0) << name;
    EXPECT_EQ(gpu[name]["seconds"].size(), 1u) << name;
    EXPECT_LT(gpu[name]["apart"].get<double>(), allowed) << name;
    EXPECT_TRUE(contains(svg, std::string(">gpu ") + name)) << svg;
  }
  EXPECT_GT(gpu["bf16"]["apart"].get<double>(), 0.0) << "the cpu measured itself";
  EXPECT_GE(gpu["bf16"]["apart"].get<double>(), 10 * gpu["fp32"]["apart"].get<double>()) << "bf16 that rounds nothing was not bf16";

  const Setting absent("VG_FAKE_CONV_LIBRARY", "absent");
  const Result without = run("segbench", {"speedup", "--cases", "tiny", "-n", "1", "-q", "--json", "--precision", "fp32,tf32"});
  ASSERT_EQ(without.code, 0) << without.err;
  const nlohmann::json ours = nlohmann::json::parse(without.out)["cases"][0]["gpu"];
  EXPECT_TRUE(ours.contains("fp32")) << without.out;
  EXPECT_FALSE(ours.contains("tf32")) << "who computed it?";
  EXPECT_FALSE(ours.contains("bf16")) << "nobody asked";
  EXPECT_TRUE(contains(without.out, "tf32 is cuDNN's alone, and was not measured: no fake library of convolutions")) << without.out;
}

TEST_F(CudaPrograms, MemoryIsCapped) {
  const Result r = train("cuda", "capped", {"--max-vram", "200000"});
  EXPECT_EQ(r.code, 1);
  EXPECT_TRUE(contains(r.err, " more would pass the limit: ")) << r.err;
  EXPECT_EQ(train("cuda", "room", {"--max-vram", "20M"}).code, 0);
  EXPECT_EQ(train("cuda", "usage", {"--max-vram", "much"}).code, 2);
}

TEST_F(CudaPrograms, APluginThatIsNotThere) {
  const Setting absent("VG_CUDA_PLUGIN", "/nowhere/plugin.so");
  const Result r = train("cuda", "absent");
  EXPECT_EQ(r.code, 1);
  EXPECT_TRUE(contains(r.err, "VG_CUDA_PLUGIN: /nowhere/plugin.so")) << r.err;
  ::setenv("VG_CUDA_PLUGIN", (std::string(VG_BIN_DIR) + "/libvoxgrad_cuda_fake.so").c_str(), 1);
  const Setting none("VG_CUDA_FAKE", "devices=0");
  EXPECT_TRUE(contains(train("cuda", "none").err, "no CUDA device: the NVIDIA driver sees no GPU"));
}

}  // namespace
}  // namespace vg::test
