// Everything that decides how a network is trained, as one JSON document: what `segtrain --config` reads, what the checkpoint remembers.
#pragma once
#include <optional>

#include "layers/dynamic_unet.h"
#include "layers/unet.h"
#include "train/optimizer.h"
#include "train/schedule.h"

namespace vg {

struct AugmentConfig {
  bool flip = false;          // along the left-right axis, exchanging paired labels; never where no pairs are known
  double intensity = 0.0;     // probability of random brightness, contrast and gamma
  double noise = 0.0;         // probability of Gaussian noise
  double affine = 0.0;        // probability of a random rotation and scaling
  double rotation = 15.0, scaling = 0.15;  // degrees; part
  double elastic = 0.0;       // probability of a random bending
  // Of its control points, in voxels: their distance, and the largest displacement of one along an axis, at most 0.4 of the distance: up to there a cubic
  // B-spline cannot fold (Choi, Lee, Graphical Models 62, 2000).
  double elastic_spacing = 32.0, elastic_magnitude = 8.0;
};

struct TrainConfig {
  UnetConfig network;           // classes, in_channels and spatial_dims are taken from the data
  std::optional<DynamicUnetConfig> dynamic_unet;  // takes the place of `network` ("network": {"network": "dynamic_unet", ...})
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  DiceCeParams loss;            // deep-supervision heads weigh 1, 1/2, 1/4, ... normalised to sum 1
  AugmentConfig augment;
  int batch = 8;
  std::vector<std::int64_t> patch;       // D, H, W (2-D: H, W); empty: whole images
  double foreground = 0.33;              // part of patches centred on a labelled voxel
  std::int64_t epochs = 8, steps = 0;    // steps > 0: so many steps instead of epochs
  std::int64_t steps_per_epoch = 0;      // 0: one pass over the data
  double overlap = 0.5;                  // of validation windows
  std::uint64_t seed = 0;
  // Of activations: "fp32", or "bf16" or "fp16" on a GPU (and sim); weights, statistics and losses are f32 always. "tf32": all f32, multiplied by cuDNN as tf32.
  std::string precision = "fp32";
  double loss_scale = 65536;       // fp16: the first one; it halves when a gradient overflows and doubles after scale_interval good steps
  std::int32_t scale_interval = 2000;
  bool exact = false;  // convolutions only by arithmetic that rounds no coarser than the plain sum (ConvAlgorithm)
};

// The network for such data, which are written into the configuration.
Graph network_for(TrainConfig& c, int spatial_dims, int in_channels, int classes);

Json to_json(const TrainConfig& c);
TrainConfig train_config_from_json(const Json& j, const std::string& where);  // strict; missing keys keep their defaults

}  // namespace vg
