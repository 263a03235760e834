// Properties that hold for every image, tried on random ones that RapidCheck shrinks to the smallest counter-example. (100 cases a property;
// RC_PARAMS="max_success=10000" tries more. What other programs make of our files: samples_test.cpp.)
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cstdlib>
#include <cstring>

#include "nifti/image.h"
#include "nifti/volume.h"
#include "tensor/random.h"

namespace vg {
namespace {

// The same cases in every run, unless RC_PARAMS says otherwise.
const int kFixedSeed = setenv("RC_PARAMS", "seed=11", 0);

constexpr Number kAll[] = {Number::u8,  Number::i8,  Number::u16, Number::i16, Number::u32,
                           Number::i32, Number::u64, Number::i64, Number::f32, Number::f64};

// From small integers, so that shrinking ends at something a person can read.
double part(int low, int high, double unit) { return *rc::gen::inRange(low, high + 1) * unit; }

// Steps of their own for the three parts of the rotation: halfway between two axes it would be anyone's guess which one is meant.
Affine any_affine() {
  Affine a = from_qform({{part(-5, 5, 0.093), part(-5, 5, 0.071), part(-5, 5, 0.087)},
                         {part(-200, 200, 1), part(-200, 200, 1), part(-200, 200, 1)},
                         {part(3, 50, 0.1), part(3, 50, 0.1), part(3, 50, 0.1)},
                         *rc::gen::arbitrary<bool>() ? 1.0 : -1.0});
  for (auto& row : a.m)
    for (double& v : row) v = static_cast<float>(v);  // likewise
  return a;
}

Image any_image() {
  Image image;
  image.name = "any";
  image.type = kAll[*rc::gen::inRange(0, 10)];
  const int axes = *rc::gen::inRange(1, 8);
  for (int a = 0; a < axes; ++a) image.dim.push_back(*rc::gen::inRange(1, a < 3 ? 20 : 3));
  image.place = {any_affine(), TransformSource::sform, *rc::gen::inRange(1, 6)};
  image.slope = *rc::gen::element(1.0, 0.5, -3.0, 1e-3), image.inter = part(-10, 10, 0.25);  // what a header can hold:
  for (double* v : {&image.slope, &image.inter}) *v = static_cast<float>(*v);
  for (int n = *rc::gen::inRange(0, 3); n > 0; --n)
    image.extensions.push_back({*rc::gen::inRange(0, 40), std::vector<std::byte>(static_cast<std::size_t>(*rc::gen::inRange(0, 100)), std::byte{7})});
  image.description = std::string(static_cast<std::size_t>(*rc::gen::inRange(0, 79)), 'd');
  image.storage = std::make_shared<Buffer>(image.bytes());
  Random random(static_cast<std::uint64_t>(*rc::gen::inRange(0, 1 << 20)));
  for (std::size_t n = 0; n < image.bytes(); ++n) image.storage->data()[n] = static_cast<std::byte>(random.bits());
  return image;
}

TEST(Property, WhatIsWrittenIsReadBackBitForBit) {
  EXPECT_TRUE(rc::check("encode_image, then parse_image", [] {
    const Image image = any_image();
    const int level = *rc::gen::inRange(0, 10);
    const Buffer bytes = encode_image(image, level);
    const Image back = parse_image(std::span<const std::byte>(bytes.data(), bytes.size()), level ? "any.nii.gz" : "any.nii");
    RC_ASSERT(back.warnings.empty());
    RC_ASSERT(back.type == image.type);
    RC_ASSERT(back.dim == image.dim);
    RC_ASSERT(back.place.affine == image.place.affine);
    RC_ASSERT(back.place.code == image.place.code);
    RC_ASSERT(back.slope == image.slope);
    RC_ASSERT(back.inter == image.inter);
    RC_ASSERT(back.description == image.description);
    RC_ASSERT(back.extensions.size() == image.extensions.size());
    RC_ASSERT(std::memcmp(back.voxels(), image.voxels(), image.bytes()) == 0);
  }));
}

// Turning the axes moves voxels, never their values or the place where they lie.
TEST(Property, AxesTurnThereAndBack) {
  EXPECT_TRUE(rc::check("reorient, then back", [] {
    constexpr const char* kPairs[] = {"RL", "AP", "SI"};
    std::vector<int> order{0, 1, 2};
    for (int n = 0; n < 2; ++n) std::swap(order[static_cast<std::size_t>(n)], order[static_cast<std::size_t>(*rc::gen::inRange(n, 3))]);
    std::string code;
    for (const int axis : order) code += kPairs[axis][*rc::gen::inRange(0, 2)];
    Volume scan;
    scan.voxels = Tensor({1, *rc::gen::inRange(1, 9), *rc::gen::inRange(1, 9), *rc::gen::inRange(1, 9), *rc::gen::inRange(1, 3)}, DType::f32, kCpu);
    const auto count = static_cast<std::size_t>(scan.voxels.elements());
    for (std::size_t i = 0; i < count; ++i) scan.voxels.data<float>()[i] = static_cast<float>(i);
    scan.place.affine = any_affine();
    const std::string own = orientation_of(scan.place.affine);
    const Volume turned = reorient(scan, code);
    RC_ASSERT(orientation_of(turned.place.affine) == code);
    const Volume back = reorient(turned, own);
    RC_ASSERT(back.voxels.shape() == scan.voxels.shape());
    RC_ASSERT(std::memcmp(back.voxels.data<float>(), scan.voxels.data<float>(), count * sizeof(float)) == 0);
    RC_ASSERT(corner_distance(scan.size(), back.place.affine, scan.place.affine) < 1e-9);
  }));
}

}  // namespace
}  // namespace vg
