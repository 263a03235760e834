// The work that is timed: a training step or a segmentation, with the same network, sizes, batch, classes, loss and optimizer as the scripts of
// benchmarks/peers. `export_to` leaves what a peer needs to start from the same numbers.
//
//   unet3d      MONAI DynUNet 16..256 (plain nnU-Net), 96^3, batch 1, 33 classes, Dice + cross-entropy, Adam 1e-4
//   monai_unet  MONAI UNet 16..256 with two residual units a level, otherwise the same
//   dynunet2d   fastai's DynamicUnet on ResNet-34, 2 x 3 x 256 x 256, 44 classes, cross-entropy + soft Dice, AdamW 1e-4
//   origin      the same with 374 classes: a brain-MRI project of 2023 trained it 1.5 h on a CPU and 5 min on a GPU, 18 times as fast
//   ixi         2-D DynUNet 16..256 on eight axial slices of data/ixi-slices, AdamW
//   tiny        a 3-D DynUNet of three levels on 16^3: seconds for everything, for tests
//   mesh128     MeshNet `subcortical` (real weights) on the central 128^3 of t1_crop: normalised tensor to labels
//   mesh256     the same on the whole scan: from the file to labels on its own grid
//   mesh256_head  ... with head_only; peers do the whole
//   slices      a volume of 64 slices of 256^2 through the network of dynunet2d (untrained), labels out
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "infer/planes.h"
#include "infer/segment.h"
#include "kernels/loss.h"
#include "train/optimizer.h"
#include "train/step.h"

namespace vg::bench {

struct CaseOptions {
  std::string data;  // folder of the test data; "": VG_TEST_DATA, else ../shared/data
  ConvAlgorithm::Allow allow = ConvAlgorithm::Allow::fast;
  Device device = kCpu;
  DType precision = DType::f32;  // of activations; halves not on the cpu
  bool tf32 = false;             // layers/context.h
};
std::string data_folder(const CaseOptions& o);

const std::vector<std::string>& train_cases();  // for which there are peers
const std::vector<std::string>& infer_cases();  // likewise
const std::vector<std::string>& speedup_cases();
bool is_train_case(const std::string& name);

// A network with its batch, loss and optimizer. step() is the inner loop of train/trainer.cpp without reading data and writing checkpoints: on a GPU, the
// first launches kernels, the second is recorded, all others are replays.
class TrainCase {
 public:
  TrainCase(const std::string& name, const CaseOptions& options);  // throws invalid_argument, io
  float step();  // returns the loss before the update
  std::string describe() const;
  // FOLDER/weights.safetensors under PyTorch's names, FOLDER/batch.safetensors: x (N, D, H, W, C) f32, y (N, D, H, W, 1) u8
  void export_to(const std::string& folder) const;
  Context& context() { return ctx_; }

 private:
  void random_batch(std::int64_t n, std::int64_t d, std::int64_t h, std::int64_t w, std::int64_t channels, int classes);
  Context ctx_;
  DiceCeParams loss_;
  double rate_ = 1e-4;
  Tensor x_, y_;
  std::unique_ptr<Network> net_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<TrainStep> step_;
};

class InferCase {
 public:
  InferCase(const std::string& name, const CaseOptions& options);  // throws invalid_argument, io, bad_file
  void run();
  std::string describe() const;
  // Of a network that the cpu runs plane by plane; where a scan is read, after run(). None for others.
  std::vector<ChainLayer> chain() const;
  // Class indices of the last run in file order (i fastest).
  const std::vector<std::uint8_t>& labels() const { return labels_; }
  double network_seconds() const { return network_seconds_; }  // of the last run: without reading, normalising and writing back
  Context& context() { return ctx_; }

 private:
  Context ctx_;
  std::string scan_;
  bool whole_, head_only_;
  DType precision_;
  Shape shape_;  // of the scan
  std::unique_ptr<Segmenter> segmenter_;
  std::unique_ptr<Network> net_;  // of slices
  Tensor image_;                  // without a file
  std::vector<std::uint8_t> labels_;
  double network_seconds_ = 0;
};

}  // namespace vg::bench
