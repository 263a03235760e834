// The self-test that every model file carries: an input and the logits that it must give.
#pragma once
#include "layers/model_file.h"

namespace vg {

// Uniform numbers (Philox, seed 0) in a block of 16^3 voxels (or the next extents that the graph divides; 2-D: D = 1), and the logits that the cpu
// device gives: golden.input (1, C, D, H, W) and golden.logits (1, O, D, H, W), for the weights as they are stored.
void add_golden(Model& model);
// Runs the golden input on `device`: the largest difference of any logit, infinity for NaN. Throws bad_file if the model has none.
float self_test(const Model& model, Device device);

}  // namespace vg
