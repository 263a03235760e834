// The synthetic heads: anatomy that a network could learn from (every label, sides, layers, contrast), placed correctly, and the same bits
// always.
#include "train/phantom.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "tensor/error.h"
#include "tensor/os.h"
#include "tensor/parallel.h"

namespace vg {
namespace {

struct Measured {
  std::int64_t voxels = 0;
  double intensity = 0;  // mean
  Vec3 centre{};         // RAS mm
};
std::map<int, Measured> measure(const Phantom& p) {
  std::map<int, Measured> found;
  const Size3 n = p.labels.size();
  const std::int32_t* ids = p.labels.voxels.data<std::int32_t>();
  const float* values = p.image.voxels.data<float>();
  for (std::int64_t k = 0; k < n[2]; ++k)
    for (std::int64_t j = 0; j < n[1]; ++j)
      for (std::int64_t i = 0; i < n[0]; ++i, ++ids, ++values) {
        Measured& m = found[*ids];
        const Vec3 at = p.labels.place.affine({double(i), double(j), double(k)});
        ++m.voxels;
        m.intensity += *values;
        for (int a = 0; a < 3; ++a) m.centre[a] += at[a];
      }
  for (auto& [id, m] : found) {
    m.intensity /= double(m.voxels);
    for (double& c : m.centre) c /= double(m.voxels);
  }
  return found;
}

Phantom head(std::int64_t size, int subject, const char* orientation = "RAS", std::uint64_t seed = 5) {
  PhantomParams params;
  params.grid = {size, size, size};
  params.subject = subject;
  params.orientation = orientation;
  params.seed = seed;
  return make_phantom(params);
}

bool same_bits(const Tensor& a, const Tensor& b) { return a.shape() == b.shape() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0; }

const std::pair<int, int> kPairs[] = {{2, 41},  {3, 42},  {4, 43},  {7, 46},  {8, 47}, {10, 49},
                                      {11, 50}, {12, 51}, {13, 52}, {17, 53}, {18, 54}};

TEST(Phantom, EveryLabelIsThereAndNoOther) {
  const Lut lut = phantom_labels();
  EXPECT_EQ(lut.entries.size(), 27u);
  EXPECT_EQ(lut.name(10), "Left-Thalamus");
  EXPECT_EQ(lut.pairs().size(), std::size(kPairs));
  for (const std::int64_t size : {48, 64}) {
    const auto found = measure(head(size, 1));
    EXPECT_EQ(found.size(), lut.entries.size()) << size;
    for (const auto& [id, entry] : lut.entries) EXPECT_GE(found.count(id) ? found.at(id).voxels : 0, 8) << entry.name << " at " << size;
  }
}

TEST(Phantom, SidesAreWhereTheAffineSays) {
  for (const char* orientation : {"RAS", "LIA", "PSR"}) {
    const Phantom p = head(64, 2, orientation);
    EXPECT_EQ(orientation_of(p.image.place.affine), orientation);
    auto found = measure(p);
    for (const auto& [left, right] : kPairs) {
      EXPECT_LT(found[left].centre[0], -4) << left << " in " << orientation;
      EXPECT_GT(found[right].centre[0], 4) << right << " in " << orientation;
    }
    EXPECT_LT(found[8].centre[1], found[18].centre[1] - 20);   // the cerebellum is behind the amygdala,
    EXPECT_LT(found[16].centre[2], found[10].centre[2] - 15);  // the brain stem below the thalamus
  }
}

TEST(Phantom, OrientationChangesTheOrderNotTheHead) {
  PhantomParams params;
  params.grid = {40, 44, 48};
  params.spacing = 4.5;
  params.noise = 0;
  const Phantom ras = make_phantom(params);
  params.orientation = "LIA";  // i from right to left, j downwards, k forwards
  params.grid = {44, 40, 48};
  const Phantom back = {reorient(make_phantom(params).image, "RAS"), reorient(make_phantom(params).labels, "RAS")};
  EXPECT_LT(corner_distance(ras.image.size(), ras.image.place.affine, back.image.place.affine), 1e-6);
  ASSERT_EQ(ras.labels.voxels.shape(), back.labels.voxels.shape());
  std::int64_t different = 0;
  for (std::int64_t i = 0; i < ras.labels.voxels.elements(); ++i)
    different += ras.labels.voxels.data<std::int32_t>()[i] != back.labels.voxels.data<std::int32_t>()[i];
  EXPECT_LT(different, ras.labels.voxels.elements() / 10000);  // rounding on a surface
}

TEST(Phantom, SidesHaveSimilarVolumes) {
  for (const int subject : {0, 1, 2}) {
    auto found = measure(head(96, subject));
    for (const auto& [left, right] : kPairs) {
      const double l = double(found[left].voxels), r = double(found[right].voxels);
      EXPECT_LT(std::fabs(l - r) / (0.5 * (l + r)), l + r < 400 ? 0.2 : 0.15) << left << " of subject " << subject;
    }
  }
  double sum[2][std::size(kPairs)] = {};  // what is left over many heads is no difference between the sides
  for (int subject = 0; subject < 12; ++subject) {
    auto found = measure(head(48, subject));
    for (std::size_t i = 0; i < std::size(kPairs); ++i) {
      sum[0][i] += double(found[kPairs[i].first].voxels);
      sum[1][i] += double(found[kPairs[i].second].voxels);
    }
  }
  for (std::size_t i = 0; i < std::size(kPairs); ++i) EXPECT_NEAR(sum[0][i] / sum[1][i], 1, 0.15) << kPairs[i].first;
}

TEST(Phantom, CortexLiesBetweenCsfAndWhiteMatter) {
  const Phantom p = head(96, 3);
  const Size3 n = p.labels.size();
  const std::int32_t* ids = p.labels.voxels.data<std::int32_t>();
  const std::int64_t step[3] = {1, n[0], n[0] * n[1]};
  std::int64_t cortex_csf = 0, cortex_white = 0, white_csf = 0, sulci = 0;
  for (std::int64_t k = 1; k + 1 < n[2]; ++k)
    for (std::int64_t j = 1; j + 1 < n[1]; ++j)
      for (std::int64_t i = 1; i + 1 < n[0]; ++i)
        for (const std::int64_t s : step) {
          const std::int64_t at = (k * n[1] + j) * n[0] + i;
          const auto cortex = [](int id) { return id == 3 || id == 42; };
          const auto white = [](int id) { return id == 2 || id == 41; };
          for (const auto& [a, b] : {std::pair{ids[at], ids[at + s]}, std::pair{ids[at + s], ids[at]}}) {
            cortex_csf += cortex(a) && b == 24;
            cortex_white += cortex(a) && white(b);
            white_csf += white(a) && b == 24;
          }
          sulci += ids[at] == 24 && cortex(ids[at - s]) && cortex(ids[at + s]);
        }
  EXPECT_GT(cortex_csf, 10000);
  EXPECT_GT(cortex_white, 10000);
  EXPECT_LT(white_csf, cortex_csf / 20);
  EXPECT_GT(sulci, 1000);  // CSF with cortex on both sides: the surface is folded
}

TEST(Phantom, IntensitiesOfAT1InEveryScanner) {
  double lowest = 1e9, highest = 0;
  for (int site = 0; site < kPhantomSites; ++site) {
    PhantomParams params;
    params.grid = {64, 64, 64};
    params.site = site;
    const Phantom p = make_phantom(params);
    EXPECT_EQ(p.site, site);
    auto found = measure(p);
    EXPECT_LT(found[4].intensity * 1.5, found[3].intensity);
    EXPECT_LT(found[3].intensity * 1.1, found[10].intensity);
    EXPECT_LT(found[10].intensity * 1.05, found[2].intensity);
    lowest = std::min(lowest, found[2].intensity);
    highest = std::max(highest, found[2].intensity);
    const float* v = p.image.voxels.data<float>();
    for (std::int64_t i = 0; i < p.image.voxels.elements(); ++i) ASSERT_TRUE(v[i] >= 0 && v[i] < 32767 && v[i] == std::floor(v[i]));
  }
  EXPECT_GT(highest, 4 * lowest);  // units differ between scanners
}

TEST(Phantom, NoiseIsRician) {  // in air the magnitude of two normal numbers: mean sd sqrt(pi / 2), mean square 2 sd^2
  PhantomParams params;
  params.grid = {16, 64, 64};
  params.spacing = 8;  // mostly air
  params.site = 2;
  const Phantom p = make_phantom(params);
  double sum = 0, square = 0, n = 0;
  for (std::int64_t i = 0; i < 64 * 8; ++i) {  // the first rows are far from the head
    const double v = p.image.voxels.data<float>()[i];
    sum += v;
    square += v * v;
    ++n;
  }
  EXPECT_NEAR(sum / n / std::sqrt(square / n), std::sqrt(3.14159265 / 4), 0.05);
}

TEST(Phantom, SameBitsForAnyThreadsOtherBitsForOtherSubjects) {
  const int before = threads();
  set_threads(1);
  const Phantom one = head(48, 7);
  for (const int n : {2, 3}) {
    set_threads(n);
    const Phantom again = head(48, 7);
    EXPECT_TRUE(same_bits(one.image.voxels, again.image.voxels)) << n;
    EXPECT_TRUE(same_bits(one.labels.voxels, again.labels.voxels)) << n;
  }
  set_threads(before);
  for (const Phantom& other : {head(48, 8), head(48, 7, "RAS", 6)}) {
    std::int64_t different = 0;
    for (std::int64_t i = 0; i < one.labels.voxels.elements(); ++i)
      different += one.labels.voxels.data<std::int32_t>()[i] != other.labels.voxels.data<std::int32_t>()[i];
    EXPECT_GT(different, one.labels.voxels.elements() / 50);
    EXPECT_LT(different, one.labels.voxels.elements() / 4);  // still a head
  }
}

TEST(Phantom, OneSliceOfAHead) {
  PhantomParams params;
  params.grid = {96, 1, 96};  // coronal
  params.seed = 11;
  const Phantom p = make_phantom(params);
  EXPECT_EQ(p.image.voxels.shape(), (Shape{1, 96, 1, 96, 1}));
  const auto found = measure(p);
  for (const int id : {2, 3, 41, 42, 24}) EXPECT_GT(found.count(id) ? found.at(id).voxels : 0, 50) << id;
}

TEST(Phantom, RefusesWhatItCannotDraw) {
  const auto refused = [](auto&& change) {
    PhantomParams params;
    params.grid = {8, 8, 8};
    change(params);
    EXPECT_THROW(make_phantom(params), Error);
  };
  refused([](PhantomParams& p) { p.orientation = "RAL"; });
  refused([](PhantomParams& p) { p.orientation = "RA"; });
  refused([](PhantomParams& p) { p.grid = {8, 0, 8}; });
  refused([](PhantomParams& p) { p.grid = {8, 8}; });
  refused([](PhantomParams& p) { p.spacing = -1; });
  refused([](PhantomParams& p) { p.site = 3; });
  refused([](PhantomParams& p) { p.subject = -1; });
}

TEST(Phantom, WritesAFolderThatNnUnetReads) {
  namespace fs = std::filesystem;
  const fs::path folder = fs::path(testing::TempDir()) / fmt::format("vg_phantoms_{}", os::wall_seconds());
  PhantomSet set;
  set.folder = folder.string();
  set.training = 2;
  set.test = 1;
  set.params.grid = {24, 28, 26};
  EXPECT_EQ(write_phantoms(set), 3);
  const auto json = nlohmann::json::parse(os::read_text((folder / "dataset.json").string()));
  EXPECT_EQ(json["numTraining"], 2);
  EXPECT_EQ(json["file_ending"], ".nii.gz");
  EXPECT_EQ(json["channel_names"]["0"], "T1");
  EXPECT_EQ(json["labels"]["background"], 0);
  EXPECT_EQ(json["labels"]["Right-Hippocampus"], 53);
  PhantomParams params = set.params;
  params.subject = 2;
  const Phantom held_out = make_phantom(params);
  const Volume image = read_volume((folder / "imagesTs/case_002_0000.nii.gz").string()),
               labels = read_labels((folder / "labelsTs/case_002.nii.gz").string());
  EXPECT_TRUE(same_bits(image.voxels, held_out.image.voxels));
  EXPECT_TRUE(same_bits(labels.voxels, held_out.labels.voxels));
  EXPECT_EQ(image.stored, Number::i16);
  EXPECT_LT(corner_distance(image.size(), image.place.affine, held_out.image.place.affine), 1e-3);
  EXPECT_TRUE(fs::exists(folder / "imagesTr/case_001_0000.nii.gz") && fs::exists(folder / "labelsTr/case_000.nii.gz") &&
              fs::exists(folder / "lut.txt"));
  fs::remove_all(folder);
}

}  // namespace
}  // namespace vg
