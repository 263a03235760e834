// Random images of every format we write, for other programs to read: in a temporary folder, or in VG_SAMPLES for samples_nibabel.py, which
// compares voxels and affines with what stands in samples.json. Our own reader checks them in any case.
#include <fstream>

#include <nlohmann/json.hpp>

#include "layers/sha256.h"
#include "nifti/volume.h"
#include "tensor/os.h"
#include "tensor/random.h"
#include "tests/nifti/fixture.h"

namespace vg {
namespace {

Image random_image(Random& random, bool mgh) {
  constexpr Number kNifti[] = {Number::u8,  Number::i8,  Number::u16, Number::i16, Number::u32,
                               Number::i32, Number::u64, Number::i64, Number::f32, Number::f64};
  constexpr Number kMgh[] = {Number::u8, Number::i16, Number::i32, Number::f32};
  Image image;
  image.name = "random";
  image.type = mgh ? kMgh[random.below(4)] : kNifti[random.below(10)];
  const std::uint32_t axes = mgh ? 3 + random.below(2) : 1 + random.below(5);
  for (std::uint32_t a = 0; a < axes; ++a) image.dim.push_back(1 + random.below(a < 3 ? 19 : 4));
  if (mgh && axes == 4 && image.dim[3] == 1) image.dim.pop_back();  // one frame is no axis there
  const Vec3 bcd{random.uniform(-0.5f, 0.5f), random.uniform(-0.5f, 0.5f), random.uniform(-0.5f, 0.5f)};
  image.place.affine = from_qform({bcd,
                                   {random.uniform(-200, 200), random.uniform(-200, 200), random.uniform(-200, 200)},
                                   {random.uniform(0.3f, 5), random.uniform(0.3f, 5), random.uniform(0.3f, 5)},
                                   random.below(2) ? 1.0 : -1.0});
  for (auto& row : image.place.affine.m)
    for (double& v : row) v = static_cast<float>(v);  // what a header can hold
  image.place.source = TransformSource::sform, image.place.code = 1 + static_cast<int>(random.below(5));
  if (!mgh && random.below(4) == 0) image.slope = random.uniform(-3, 3), image.inter = random.uniform(-100, 100);
  if (!mgh)
    for (std::uint32_t n = random.below(3); n > 0; --n)
      image.extensions.push_back({6, std::vector<std::byte>(random.below(100), std::byte{'e'})});
  image.storage = std::make_shared<Buffer>(image.bytes());
  const bool smooth = random.below(2);
  std::byte last{};
  for (std::size_t n = 0; n < image.bytes(); ++n) {
    if (!smooth || random.below(9) == 0) last = static_cast<std::byte>(random.bits());
    image.storage->data()[n] = last;
  }
  return image;
}

TEST(Samples, OfEveryFormatForOtherReaders) {
  const test::TemporaryFolder own;
  const std::string given = os::environment("VG_SAMPLES");
  const std::string folder = given.empty() ? own / "" : given + "/";
  const std::uint64_t count = given.empty() ? 60 : 10000;
  nlohmann::json list = nlohmann::json::array();
  constexpr const char* kEndings[] = {".nii", ".nii.gz", ".mgh", ".mgz", ".hdr", ".img.gz"};
  for (std::uint64_t seed = 0; seed < count; ++seed) {
    SCOPED_TRACE(seed);
    Random random(77, seed);
    const std::string ending = kEndings[random.below(6)];
    const bool mgh = ending[1] == 'm';
    const Image image = random_image(random, mgh);
    const std::string name = "s" + std::to_string(seed) + ending, path = folder + name;
    write_image(path, image, {.gzip_level = random.below(3) ? 1 : 2 + static_cast<int>(random.below(6))});
    const Image back = read_image(path);
    EXPECT_EQ(back.dim, image.dim);
    EXPECT_EQ(std::memcmp(back.voxels(), image.voxels(), image.bytes()), 0);
    EXPECT_LT(corner_distance(image.size(), back.place.affine, image.place.affine), mgh ? 1e-3 : 1e-12);
    nlohmann::json affine = nlohmann::json::array();
    for (const auto& row : back.place.affine.m) affine.push_back({row[0], row[1], row[2], row[3]});
    list.push_back({{"file", name},
                    {"shape", image.dim},
                    {"type", name_of(image.type)},
                    {"slope", static_cast<float>(image.slope)},
                    {"inter", static_cast<float>(image.inter)},
                    {"extensions", image.extensions.size()},
                    {"affine", affine},
                    {"sha256", sha256_hex({image.voxels(), image.bytes()})}});
  }
  if (!given.empty()) std::ofstream(folder + "samples.json") << list.dump();
}

}  // namespace
}  // namespace vg
