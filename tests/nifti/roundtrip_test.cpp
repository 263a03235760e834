// Write and read back: all element types, both byte orders, extensions, labels, transforms; many random images.
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <new>

#include "nifti/gzip.h"
#include "nifti/header.h"
#include "nifti/volume.h"
#include "tensor/error.h"
#include "tensor/random.h"
#include "tests/nifti/fixture.h"

namespace vg {
namespace {

using test::Bytes;
using test::RawNifti;
using test::TemporaryFolder;

constexpr Number kAll[] = {Number::u8,  Number::i8,  Number::u16, Number::i16, Number::u32,
                           Number::i32, Number::u64, Number::i64, Number::f32, Number::f64};

TEST(RoundTrip, AllTypesAndByteOrdersReadTheSameValues) {
  for (Number type : kAll)
    for (bool big : {false, true}) {
      SCOPED_TRACE(name_of(type));
      RawNifti raw(big);
      raw.set<std::int16_t>(70, static_cast<std::int16_t>(nifti_code(type)))
          .set<std::int16_t>(72, static_cast<std::int16_t>(8 * size_of(type)));
      raw.resize(352 + 24 * size_of(type));
      const bool is_signed = type == Number::i8 || type == Number::i16 || type == Number::i32 || type == Number::i64 || type >= Number::f32;
      auto value = [&](int n) { return n == 7 && is_signed ? -100 : 5 * n; };
      with_number(type, [&]<class T>() {
        for (int n = 0; n < 24; ++n) raw.set<T>(352 + n * sizeof(T), static_cast<T>(value(n)));
      });
      const Image image = parse_image(std::span<const std::byte>(raw.bytes()), "x.nii");
      EXPECT_TRUE(image.warnings.empty());
      EXPECT_EQ(image.type, type);
      const Volume v = to_volume(image), l = to_labels(image);
      EXPECT_EQ(v.voxels.shape(), (Shape{1, 4, 3, 2, 1}));
      for (int n = 0; n < 24; ++n) {
        ASSERT_EQ(v.voxels.data<float>()[n], static_cast<float>(value(n)));
        ASSERT_EQ(l.voxels.data<std::int32_t>()[n], value(n));
      }
    }
}

// A random image with a random everything.
Image random_image(Random& random) {
  Image image;
  image.name = "random";
  image.type = kAll[random.below(10)];
  const int axes = 1 + static_cast<int>(random.below(5));
  for (int a = 0; a < axes; ++a) image.dim.push_back(1 + random.below(axes > 3 ? 5 : 17));
  const Vec3 bcd{random.uniform(-0.5f, 0.5f), random.uniform(-0.5f, 0.5f), random.uniform(-0.5f, 0.5f)};
  Affine a = from_qform({bcd,
                         {random.uniform(-200, 200), random.uniform(-200, 200), random.uniform(-200, 200)},
                         {random.uniform(0.3f, 5), random.uniform(0.3f, 5), random.uniform(0.3f, 5)},
                         random.below(2) ? 1.0 : -1.0});
  for (auto& row : a.m)
    for (double& v : row) v = static_cast<float>(v);  // what a header can hold
  image.place = {a, TransformSource::sform, 1 + static_cast<int>(random.below(5))};
  if (random.below(2)) image.slope = random.uniform(-3, 3), image.inter = random.uniform(-100, 100);
  image.pixdim[4] = random.uniform(0, 3);
  image.units = 10;
  image.intent_code = static_cast<int>(random.below(2000));
  image.intent_name = std::string(random.below(15), 'i');
  image.description = std::string(random.below(79), 'd');
  for (std::uint32_t n = random.below(3); n > 0; --n) {
    Extension e{static_cast<int>(random.below(50)), {}};
    e.bytes.resize(16 * random.below(9) + 8);
    for (auto& b : e.bytes) b = static_cast<std::byte>(random.bits());
    image.extensions.push_back(e);
  }
  image.storage = std::make_shared<Buffer>(image.bytes());
  for (std::size_t n = 0; n < image.bytes(); ++n) image.storage->data()[n] = static_cast<std::byte>(random.bits());
  return image;
}

TEST(RoundTrip, RandomImagesComeBackBitForBit) {
  TemporaryFolder folder;
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    SCOPED_TRACE(seed);
    Random random(11, seed);
    const Image image = random_image(random);
    const bool packed = random.below(2);
    const int level = packed ? 1 + static_cast<int>(random.below(6)) : 0;
    Image back;
    if (seed < 20) {  // through files, which are synced to disk; the others in memory
      const std::string path = folder / (packed ? "r.nii.gz" : "r.nii");
      write_image(path, image, {packed ? level : 1});
      back = read_image(path);
    } else {
      const Buffer bytes = encode_image(image, level);
      back = parse_image(std::span<const std::byte>(bytes.data(), bytes.size()), packed ? "r.nii.gz" : "r.nii");
    }
    for (const Warning& w : back.warnings) EXPECT_EQ(w.name, "none expected") << w.text;
    EXPECT_EQ(back.type, image.type);
    EXPECT_EQ(back.dim, image.dim);
    EXPECT_EQ(back.place.affine, image.place.affine);
    EXPECT_EQ(back.place.code, image.place.code);
    EXPECT_EQ(back.slope, image.slope);
    EXPECT_EQ(back.inter, image.inter);
    EXPECT_EQ(back.intent_code, image.intent_code);
    EXPECT_EQ(back.intent_name, image.intent_name);
    EXPECT_EQ(back.description, image.description);
    EXPECT_EQ(static_cast<float>(back.pixdim[4]), static_cast<float>(image.pixdim[4]));
    ASSERT_EQ(back.extensions.size(), image.extensions.size());
    for (std::size_t n = 0; n < back.extensions.size(); ++n) {
      EXPECT_EQ(back.extensions[n].code, image.extensions[n].code);
      EXPECT_EQ(back.extensions[n].bytes, image.extensions[n].bytes);
    }
    ASSERT_EQ(back.bytes(), image.bytes());
    EXPECT_EQ(std::memcmp(back.voxels(), image.voxels(), image.bytes()), 0);
    Warnings warnings;
    const Buffer plain = encode_image(image, 0);
    const NiftiHeader h = parse_header({plain.data(), plain.size()}, "r.nii", warnings);
    const Affine q = from_qform({h.bcd, h.qoffset, {h.pixdim[1], h.pixdim[2], h.pixdim[3]}, h.pixdim[0]});
    EXPECT_LT(corner_distance(image.size(), q, image.place.affine), 1e-3) << "the qform says the same as the sform";
  }
}

TEST(RoundTrip, AxesBeyond32767MakeNifti2) {
  TemporaryFolder folder;
  Image image;
  image.dim = {40000, 1, 2};
  image.place.code = 2;
  image.storage = std::make_shared<Buffer>(80000);
  for (std::size_t n = 0; n < 80000; ++n) image.storage->data()[n] = static_cast<std::byte>(n * 7);
  write_image(folder / "long.nii.gz", image);
  const Image back = read_image(folder / "long.nii.gz");
  EXPECT_EQ(back.dim, image.dim);
  EXPECT_TRUE(back.warnings.empty());
  EXPECT_EQ(back.format, "NIfTI-2, little endian, gzip");
  EXPECT_EQ(std::memcmp(back.voxels(), image.voxels(), 80000), 0);
}

Volume label_volume(std::vector<std::int32_t> values, Shape shape) {
  Volume v;
  v.voxels = from_host(values, shape);
  v.place.affine.m[0][0] = -1.5;
  return v;
}

TEST(RoundTrip, NumbersBeyondFloatMakeNifti2) {
  RawNifti source = test::raw_nifti2();
  source.set<double>(400, 1e-41).set<double>(176, 1e300);  // srow_x[0], scl_slope
  Image image = parse_image(std::span<const std::byte>(source.bytes()), "x.nii");
  ASSERT_EQ(image.slope, 1e300);
  const Buffer written = encode_image(image, 0);
  const Image back = parse_image({written.data(), written.size()}, "y.nii");
  EXPECT_EQ(back.format, "NIfTI-2, little endian");
  EXPECT_EQ(back.place.affine, image.place.affine);
  EXPECT_EQ(back.slope, 1e300);
}

TEST(RoundTrip, LabelsTakeTheSmallestType) {
  TemporaryFolder folder;
  const struct {
    std::vector<std::int32_t> values;
    Number type;
  } cases[] = {{{0, 255, 17, 41}, Number::u8},     {{0, 256, 17, 41}, Number::i16},
               {{0, 255, -1, 41}, Number::i16},    {{-32768, 32767, 0, 1}, Number::i16},
               {{0, 32768, 0, 1}, Number::i32},    {{-32769, 1, 0, 1}, Number::i32},
               {{0, 12345678, 0, 1}, Number::i32}, {{std::numeric_limits<int>::min(), 0, 0, std::numeric_limits<int>::max()}, Number::i32}};
  for (const auto& c : cases) {
    write_nifti(folder / "l.nii.gz", label_volume(c.values, {1, 1, 2, 2, 1}), {.description = "labels"});
    const Image image = read_image(folder / "l.nii.gz");
    EXPECT_EQ(image.type, c.type);
    EXPECT_EQ(image.intent_code, 1002);
    EXPECT_EQ(image.description, "labels");
    EXPECT_EQ(image.place.code, 2) << "an affine without a code must not get lost";
    EXPECT_EQ(image.place.affine.m[0][0], -1.5);
    EXPECT_EQ(to_host<std::int32_t>(to_labels(image).voxels), c.values);
  }
}

TEST(RoundTrip, ChosenTypesRoundOrRefuse) {
  const Volume labels = label_volume({0, 300, 1, 2}, {1, 1, 2, 2, 1});
  EXPECT_THROW(to_image(labels, {.type = Number::u8}), Error);
  EXPECT_THROW(to_image(label_volume({0, -1, 1, 2}, {1, 1, 2, 2, 1}), {.type = Number::u64}), Error);
  EXPECT_NO_THROW(to_image(labels, {.type = Number::u16}));
  for (Number type : kAll)
    if (size_of(type) > 1) {
      EXPECT_EQ(to_host<std::int32_t>(to_labels(to_image(labels, {.type = type})).voxels), (std::vector<std::int32_t>{0, 300, 1, 2}))
          << name_of(type);
    }
  Volume real;
  real.voxels = from_host(std::vector<float>{0.4f, 254.6f, 1.5f, 2.5f}, {1, 1, 2, 2, 1});
  EXPECT_EQ(to_host<float>(to_volume(to_image(real, {.type = Number::u8})).voxels), (std::vector<float>{0, 255, 2, 2}));
  for (float bad : {255.6f, -0.6f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    real.voxels.data<float>()[2] = bad;
    EXPECT_THROW(to_image(real, {.type = Number::u8}), Error) << bad;
    EXPECT_NO_THROW(to_image(real)) << "f32 holds everything";
  }
  real.voxels.data<float>()[2] = 9.2233720368547758e18f;  // 2^63
  EXPECT_THROW(to_image(real, {.type = Number::i64}), Error);
  EXPECT_NO_THROW(to_image(real, {.type = Number::u64}));
}

TEST(RoundTrip, TheHeaderAloneIsEnough) {
  TemporaryFolder folder;
  Random random(9);
  Bytes voxels = RawNifti().bytes();
  voxels.resize(400000);
  for (std::size_t n = 400; n < voxels.size(); ++n) voxels[n] = static_cast<std::byte>(random.bits());
  Bytes packed = test::gz(voxels), named = packed;
  ASSERT_GT(packed.size(), 1u << 16);
  named[3] = std::byte{8};  // a gzip header with a name longer than what is probed
  named.insert(named.begin() + 10, 100000, std::byte{'n'});
  named.insert(named.begin() + 100010, std::byte{0});
  for (const Bytes* b : std::initializer_list<const Bytes*>{&voxels, &packed, &named}) {
    const std::string path = folder / "h.nii.gz";
    std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(b->data()), static_cast<std::streamsize>(b->size()));
    const Image header = read_image_header(path);
    EXPECT_EQ(header.dim, (std::vector<std::int64_t>{2, 3, 4}));
    EXPECT_EQ(header.place.affine, read_image(path).place.affine);
    EXPECT_EQ(header.storage, nullptr);
  }
}

TEST(RoundTrip, ChannelsBecomeTheFourthAxis) {
  Volume v;
  std::vector<float> values(3 * 4 * 5 * 2);
  for (std::size_t n = 0; n < values.size(); ++n) values[n] = static_cast<float>(n);
  v.voxels = from_host(values, {1, 3, 4, 5, 2});
  const Image image = to_image(v);
  EXPECT_EQ(image.dim, (std::vector<std::int64_t>{5, 4, 3, 2}));
  EXPECT_EQ(reinterpret_cast<const float*>(image.voxels())[60], 1.0f) << "second volume = channel 1";
  EXPECT_EQ(to_host<float>(to_volume(image).voxels), values);
  EXPECT_EQ(to_volume(image, {.frame = 1}).voxels.data<float>()[3], 7.0f);
}

TEST(RoundTrip, WritersRefuseNonsenseAndLeaveNothingBehind) {
  TemporaryFolder folder;
  const Volume v = label_volume({0, 1, 2, 3}, {1, 1, 2, 2, 1});
  EXPECT_THROW(write_nifti(folder / "no/such/folder.nii", v), Error);
  EXPECT_THROW(write_nifti(folder / "a.nii.gz", v, {.gzip_level = 0}), Error);
  EXPECT_THROW(write_nifti(folder / "a.nii.gz", v, {.gzip_level = 13}), Error);
  EXPECT_THROW(write_nifti(folder / "a.nii", Volume{}), Error);
  EXPECT_THROW(write_nifti(folder / "a.mgz", v), Error) << "a NIfTI file under a name that says otherwise";
  EXPECT_TRUE(std::filesystem::is_empty(folder / ""));
  EXPECT_THROW(read_image(folder / "absent.nii"), Error);
  EXPECT_THROW(read_image(folder / ""), Error) << "a folder";
}

}  // namespace
}  // namespace vg
