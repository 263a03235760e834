// seginfer: labels, volumes and confidence for scans.
#include <filesystem>
#include <future>

#include "infer/cases.h"
#include "infer/qc.h"
#include "infer/report.h"
#include "infer/segment.h"
#include "infer/self_test.h"
#include "nifti/png.h"
#include "tools/gpu_options.h"

namespace {

using namespace vg;
namespace fs = std::filesystem;

struct Arguments {
  std::string input, output, model, device = "auto", volumes, confidence, entropy, top_labels, top_confidence, qc, report, max_memory, precision = "fp32";
  int threads = 0, volume = -1, series = -1, top = 3;
  bool conformed = false, dry_run = false, plan = false, self_test = false, quiet = false, cpu = false, exact = false, head_only = false;
  GpuOptions gpu;
};

// A side output of one case: the path as given for a single case, else CASE_suffix in the folder that was given.
std::string beside(const std::string& given, const Case& c, std::size_t cases, const char* suffix) {
  return cases == 1 && fs::path(given).has_extension() ? given : (fs::path(given) / (c.name + suffix)).string();
}

void make_parent(const std::string& path) {
  const fs::path folder = fs::path(path).parent_path();
  std::error_code error;
  if (!folder.empty()) fs::create_directories(folder, error);
  if (error) fail(ErrorCode::io, "{}: {}", folder.string(), error.message());
}

// The scan's name with what --series and --volume say.
std::string picked(const Arguments& a) {
  std::string name = a.input;
  if (a.series >= 0) name += ",series=" + std::to_string(a.series);
  if (a.volume >= 0) name += "," + std::to_string(a.volume);
  return name;
}

void write_labels(const Segmentation& s, const std::string& path, const Lut& lut) {
  make_parent(path);
  if (fs::path(path).extension() != ".png") return write_volume(path, s.labels, {.type = {}, .labels = true, .description = "voxgrad " VG_VERSION, .gzip_level = 1});
  const Shape& shape = s.labels.voxels.shape();
  require(shape.d() == 1, "{}: a volume does not fit a PNG; name a .nii.gz or .mgz", path);
  write_png_labels(path, s.labels.voxels.data<std::int32_t>(), shape.w(), shape.h(), lut);
}

DType precision_of(const Arguments& a) { return a.precision == "bf16" ? DType::bf16 : a.precision == "fp16" ? DType::f16 : DType::f32; }

bool wants_confidence(const Arguments& a) { return !a.confidence.empty() || !a.top_confidence.empty(); }
int candidates_of(const Arguments& a) { return a.top_labels.empty() && a.top_confidence.empty() ? 1 : a.top; }

// Writes what was found in a scan. seconds: what reading and segmenting took.
CaseReport write_case(const Segmentation& s, const Lut& lut, const Case& c, const Arguments& a, std::size_t cases, double seconds) {
  CaseReport r{.name = c.name, .input = c.input, .output = c.output, .error = {}, .volumes = {}, .warnings = {}};
  const double start = os::wall_seconds();
  write_labels(s, c.output, lut);
  const auto write_map = [&](const std::string& given, const char* suffix, const Volume& map, const char* description) {
    const std::string path = beside(given, c, cases, suffix);
    make_parent(path);
    write_volume(path, map, {.type = Number::f32, .labels = false, .description = description, .gzip_level = 1});
  };
  if (s.confidence && !a.confidence.empty()) write_map(a.confidence, "_conf.nii.gz", *s.confidence, "softmax probability of the label");
  if (s.candidates && !a.top_labels.empty()) {
    const std::string path = beside(a.top_labels, c, cases, "_top.nii.gz");
    make_parent(path);
    write_volume(path, *s.candidates, {.type = {}, .labels = true, .description = "likeliest labels, the likeliest first", .gzip_level = 1});
  }
  if (s.chances && !a.top_confidence.empty()) write_map(a.top_confidence, "_topconf.nii.gz", *s.chances, "softmax probabilities of the likeliest labels");
  if (s.entropy) write_map(a.entropy, "_entropy.nii.gz", *s.entropy, "entropy of the softmax probabilities, nats");
  if (!a.qc.empty()) {
    const std::string path = beside(a.qc, c, cases, "_qc.png");
    make_parent(path);
    QcOptions o;
    o.title = "voxgrad: research use, not a medical device";
    write_qc_mosaic(path, s.image, s.labels, lut, o);
  }
  r.volumes = label_volumes(s.labels);
  for (const Warning& w : s.warnings) r.warnings.push_back(w.text);
  r.network_seconds = s.network_seconds, r.total_seconds = seconds + os::wall_seconds() - start;
  return r;
}

// All cases: while one is segmented, the next is read and the one before is written, unless memory is limited: then one after the other.
class Pipeline {
 public:
  Pipeline(Context& ctx, Segmenter& segmenter, const std::vector<Case>& cases, const Arguments& a)
      : ctx_(ctx), segmenter_(segmenter), cases_(cases), a_(a), lut_(segmenter.lut()), how_(a.max_memory.empty() ? std::launch::async : std::launch::deferred), bar_(a.quiet) {}

  void run() {
    std::future<Volume> scan;
    for (std::size_t i = 0; i < cases_.size(); ++i) {
      try {
        const double start = os::wall_seconds();
        const Volume now = (scan.valid() ? std::move(scan) : read(i)).get();
        if (i + 1 < cases_.size()) scan = read(i + 1);
        SegmentOptions o{.conformed = a_.conformed, .confidence = wants_confidence(a_), .entropy = !a_.entropy.empty(), .candidates = candidates_of(a_), .precision = precision_of(a_), .max_bytes = bytes_of(a_.max_memory),
                         .head_only = a_.head_only, .progress = {}};
        o.progress = [&](double done) { bar_.draw((static_cast<double>(i) + done) / static_cast<double>(cases_.size()), cases_[i].name); };
        Segmentation s = segment(ctx_, segmenter_, now, o);
        collect();
        writing_ = i;
        written_ = std::async(how_, [this, i, seconds = os::wall_seconds() - start, s = std::move(s)] { return write_case(s, lut_, cases_[i], a_, cases_.size(), seconds); });
        if (how_ == std::launch::deferred) collect();
      } catch (const std::exception& e) {  // one bad case never stops the rest
        if (!scan.valid() && i + 1 < cases_.size()) scan = read(i + 1);
        collect();
        failed(i, e.what());
      }
    }
    collect();
  }
  const std::vector<CaseReport>& reports() const { return reports_; }
  std::size_t failures() const { return failures_; }

 private:
  std::future<Volume> read(std::size_t i) {
    return std::async(how_, [path = cases_[i].input] { return read_volume(path); });
  }
  // Waits for the case that is being written, if there is one.
  void collect() {
    if (!written_.valid()) return;
    try {
      reports_.push_back(written_.get());
    } catch (const std::exception& e) {
      return failed(writing_, e.what());
    }
    if (a_.quiet) return;
    bar_.clear();
    const CaseReport& r = reports_.back();
    for (const std::string& w : r.warnings) std::fprintf(stderr, "%s: warning: %s\n", r.input.c_str(), w.c_str());
    std::fprintf(stderr, "%s -> %s (%zu labels, network %.1f s, in all %.1f s)\n", r.input.c_str(), r.output.c_str(), r.volumes.size(), r.network_seconds, r.total_seconds);
  }
  void failed(std::size_t i, const char* why) {
    bar_.clear();
    std::fprintf(stderr, "seginfer: %s\n", why);
    reports_.push_back({.name = cases_[i].name, .input = cases_[i].input, .output = cases_[i].output, .error = why, .volumes = {}, .warnings = {}});
    ++failures_;
  }

  Context& ctx_;
  Segmenter& segmenter_;
  const std::vector<Case>& cases_;
  const Arguments& a_;
  const Lut lut_;
  std::launch how_;
  ProgressBar bar_;
  std::vector<CaseReport> reports_;  // in the order of the cases
  std::size_t failures_ = 0, writing_ = 0;
  std::future<CaseReport> written_;  // of case `writing_`; waited for before the rest is torn down
};

int seginfer(Arguments a) {
  if (a.threads > 0) set_threads(a.threads);
  const Device device = choose_device(a.cpu ? "cpu" : a.device, a.quiet);
  const ConvAlgorithm convolution = use_gpu_options(a.gpu, device, a.quiet);
  Segmenter segmenter(a.model, device);
  if (a.self_test) {
    const float error = self_test(read_model(a.model), device);
    std::printf("largest difference of the golden logits on %s: %.3g\n", to_string(device).c_str(), static_cast<double>(error));
    return error <= 1e-3f ? 0 : 1;
  }
  Context ctx(device);
  ctx.convolution = convolution;
  if (a.exact) ctx.convolution.allow = ConvAlgorithm::Allow::exact;
  if (a.precision == "tf32") allow_tf32(ctx.convolution, device);
  const std::vector<Case> cases = find_cases(picked(a), a.output);
  if (a.dry_run || a.plan) {
    for (const Case& c : cases) {
      const Shape shape = network_input(segmenter, read_volume(c.input));
      PredictOptions p = predict_options(segmenter.recipe);
      p.confidence = wants_confidence(a), p.entropy = !a.entropy.empty(), p.candidates = candidates_of(a), p.max_bytes = bytes_of(a.max_memory);
      if (a.plan) std::printf("%s", predict_table(segmenter.net.graph, shape, p, ctx.convolution).c_str());
      std::printf("%s -> %s: network input %s, %.2f GiB at the peak\n", c.input.c_str(), c.output.c_str(), to_string(shape).c_str(),
                  static_cast<double>(predict_bytes(segmenter.net.graph, shape, p, ctx.convolution)) / 1073741824.0);
    }
    return 0;
  }
  Pipeline pipeline(ctx, segmenter, cases, a);
  pipeline.run();
  const std::vector<CaseReport>& reports = pipeline.reports();
  if (!a.volumes.empty()) make_parent(a.volumes), os::write_file_atomic(a.volumes, volumes_csv(reports, segmenter.lut()));
  if (!a.report.empty()) make_parent(a.report), os::write_file_atomic(a.report, report_json(reports, segmenter, to_string(device)));
  if (!a.quiet) std::fprintf(stderr, "%zu of %zu done; research use, not a medical device\n", reports.size() - pipeline.failures(), reports.size());
  return pipeline.failures() ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments a;
  CLI::App app("Segments scans with a voxgrad model: labels on each scan's own grid, volumes, confidence, a picture for quality control.", "seginfer");
  app.add_option("-i,--i,--t1,--input", a.input, "a scan (NIfTI, MGH, NRRD, PNG, DICOM file, folder or zip), a folder of scans, a BIDS data set, or a .txt list");
  app.add_option("-o,--o,--output", a.output, "label map (.nii.gz, .nii, .mgz, .mgh, .png) or folder");
  app.add_option("-m,--model", a.model, "model file")->required();
  app.add_option("-d,--device", a.device, "auto, cpu, sim, cuda, cuda:N")->capture_default_str();
  app.add_flag("--cpu", a.cpu, "the same as --device cpu");
  app.add_option("-t,--threads", a.threads, "threads of the cpu device (default: all)")->check(CLI::NonNegativeNumber);
  app.add_option("--vol", a.volumes, "CSV of volumes in mm^3, one row a scan");
  app.add_option("--conf", a.confidence, "confidence map (several scans: a folder)");
  app.add_option("--entropy", a.entropy, "map of the entropy of all classes' probabilities, in nats: 0 is certain (several scans: a folder)");
  app.add_option("--top-labels", a.top_labels, "4-D map of the --top likeliest labels of each voxel, the likeliest first (several scans: a folder)");
  app.add_option("--top-conf", a.top_confidence, "4-D map of their probabilities (several scans: a folder)");
  app.add_option("--top", a.top, "how many labels --top-labels and --top-conf hold")->check(CLI::Range(2, 256))->capture_default_str();
  app.add_option("--qc", a.qc, "picture for quality control, PNG (several scans: a folder). It can show a face");
  app.add_option("--report", a.report, "the run as JSON");
  app.add_option("--max-mem", a.max_memory, "memory to stay within, e.g. 4G: slower plans are taken, what fits by none is refused");
  app.add_flag("--head-only", a.head_only, "labels only where the scan differs from its background; saves most of the work where the background is one value");
  app.add_option("--precision", a.precision, "of activations on a GPU (and sim): fp32, bf16, fp16; tf32: fp32, multiplied by cuDNN as tf32")->check(CLI::IsMember({"fp32", "tf32", "bf16", "fp16"}))->capture_default_str();
  app.add_flag("--exact", a.exact, "convolutions round no coarser than the plain sum; slower");
  app.add_option("--volume", a.volume, "of a 4-D scan: this volume, from 0 (the same as -i FILE,N)")->check(CLI::NonNegativeNumber);
  app.add_option("--series", a.series, "of a DICOM folder or zip with several: this series, from 0 (the same as -i FOLDER,series=N)")->check(CLI::NonNegativeNumber);
  app.add_flag("--conformed", a.conformed, "results on the network's grid instead of the scan's");
  app.add_flag("--dry-run", a.dry_run, "say what would be done, and its memory");
  app.add_flag("--plan", a.plan, "print the network's layers with shapes and costs");
  app.add_flag("--selftest", a.self_test, "run the model's golden input on this device");
  add_gpu_options(app, a.gpu);
  app.add_flag("-q,--quiet", a.quiet, "print nothing but errors");
  app.callback([&] {
    usage(a.self_test || (!a.input.empty() && !a.output.empty()), "-i, -o", "name a scan and where its labels go");
    usage_size("--max-mem", a.max_memory);
    usage_size("--max-vram", a.gpu.max_memory);
  });
  return run_program(app, argc, argv, [&] { return seginfer(a); });
}
