// The quality-control mosaic: sides and directions on the screen, colours, both display conventions, single slices, and what it refuses.
#include "infer/qc.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "nifti/png.h"
#include "tensor/error.h"
#include "tensor/os.h"

namespace vg {
namespace {

constexpr Colour kLeft{255, 0, 0}, kFront{0, 255, 0}, kTop{0, 0, 255};

Lut three_colours() {
  Lut lut;
  lut.entries[1] = {"left", kLeft};
  lut.entries[2] = {"front", kFront};
  lut.entries[3] = {"top", kTop};
  return lut;
}

struct Made {
  Volume image, labels;
};
// 20^3 voxels of 2 mm in RAS: a bright block with three marks on it: 1 at the patient's left, 2 in front, 3 on top.
Made marked_block(const std::string& orientation) {
  Made m;
  for (Volume* v : {&m.image, &m.labels}) {
    v->voxels = zeros(Shape{1, 20, 20, 20, 1}, v == &m.image ? DType::f32 : DType::i32, kCpu);
    for (int a = 0; a < 3; ++a) {
      v->place.affine.m[a][a] = 2;
      v->place.affine.m[a][3] = -19;
    }
    v->place.source = TransformSource::sform;
    v->place.code = 1;
  }
  for (int k = 2; k < 18; ++k)
    for (int j = 2; j < 18; ++j)
      for (int i = 2; i < 18; ++i) {
        const int at = (k * 20 + j) * 20 + i;
        const bool inner[3] = {i >= 6 && i < 14, j >= 6 && j < 14, k >= 6 && k < 14};
        m.image.voxels.data<float>()[at] = 100 + i;
        m.labels.voxels.data<std::int32_t>()[at] = i < 6 && inner[1] && inner[2]     ? 1
                                                   : j >= 14 && inner[0] && inner[2] ? 2
                                                   : k >= 14 && inner[0] && inner[1] ? 3
                                                                                     : 0;
      }
  return {reorient(m.image, orientation), reorient(m.labels, orientation)};
}

// Mean place of the pixels that are clearly of one hue, within a part of the page (shares of its width and height).
struct Spot {
  double x = 0, y = 0, pixels = 0;
};
Spot find(const Canvas& page, Colour c, double y0, double y1) {
  Spot s;
  for (int y = static_cast<int>(y0 * page.height()); y < static_cast<int>(y1 * page.height()); ++y)
    for (int x = 0; x < page.width(); ++x) {
      const Colour p = page.at(x, y);
      int strong = 255, weak = 0;
      for (int i = 0; i < 3; ++i) (c[i] ? strong : weak) = c[i] ? std::min<int>(strong, p[i]) : std::max<int>(weak, p[i]);
      if (strong < weak + 40) continue;
      s.x += x;
      s.y += y;
      ++s.pixels;
    }
  s.x /= s.pixels;
  s.y /= s.pixels;
  return s;
}

QcOptions one_column() {
  QcOptions o;
  o.columns = 1;  // through the middle of the marks
  o.tile = 200;
  o.margin = 100;
  return o;
}
// Rows of the page with one column: heading (80 pixels), then axial, coronal, sagittal of 200 pixels each, then the legend.
double share(const Canvas& page, int row) { return (80.0 + 208 * row) / page.height(); }

TEST(Canvas, LettersAndEdges) {
  Canvas c(16, 10, {9, 9, 9});
  c.text(1, 1, "L", {200, 100, 50});
  for (int y = 0; y < 7; ++y)
    for (int x = 0; x < 5; ++x) EXPECT_EQ(c.at(1 + x, 1 + y)[0], x == 0 || y == 6 ? 200 : 9) << x << " " << y;
  c.text(12, 5, "W", {1, 2, 3}, 4);  // runs over the edge
  c.fill(-5, -5, 100, 6, {7, 7, 7});
  EXPECT_EQ(c.at(15, 0), (Colour{7, 7, 7}));
  EXPECT_EQ(c.at(0, 1), (Colour{9, 9, 9}));
  Canvas a(8, 8, {0, 0, 0}), b(8, 8, {0, 0, 0});
  a.text(0, 0, "\xff", {255, 255, 255});
  b.text(0, 0, "?", {255, 255, 255});
  for (int y = 0; y < 8; ++y)
    for (int x = 0; x < 8; ++x) EXPECT_EQ(a.at(x, y), b.at(x, y));
  EXPECT_EQ(Canvas::text_width("abc", 2), 36);
  EXPECT_THROW(Canvas(0, 5, {}), Error);
}

TEST(QcMosaic, SidesAreWhereTheLettersSay) {
  for (const char* orientation : {"RAS", "LIA", "PSL"}) {
    const Made m = marked_block(orientation);
    for (const bool radiological : {true, false}) {
      QcOptions o = one_column();
      o.radiological = radiological;
      const Canvas page = draw_qc_mosaic(m.image, m.labels, three_colours(), o);
      const double middle = page.width() / 2.0;
      const double side = radiological ? 1 : -1;  // of the picture, on which the patient's left is
      for (const int row : {0, 1}) {              // axial, coronal
        const Spot left = find(page, kLeft, share(page, row), share(page, row + 1));
        ASSERT_GT(left.pixels, 100);
        EXPECT_GT(side * (left.x - middle), 40) << orientation << " " << row;
      }
      const Spot front_axial = find(page, kFront, share(page, 0), share(page, 1)),
                 front_sagittal = find(page, kFront, share(page, 2), share(page, 3));
      const Spot top_coronal = find(page, kTop, share(page, 1), share(page, 2)),
                 top_sagittal = find(page, kTop, share(page, 2), share(page, 3));
      EXPECT_LT(front_axial.y, 80 + 60);        // the patient's front is up,
      EXPECT_LT(top_coronal.y, 80 + 208 + 60);  // the head's top is up,
      EXPECT_LT(top_sagittal.y, 80 + 416 + 60);
      EXPECT_LT(side * (front_sagittal.x - middle), -40);  // the nose to the left in the radiological view
    }
  }
}

TEST(QcMosaic, SameHeadSamePictureInAnyOrder) {
  const Made a = marked_block("RAS"), b = marked_block("LIA");
  QcOptions o = one_column();
  o.columns = 3;
  const Canvas first = draw_qc_mosaic(a.image, a.labels, three_colours(), o),
               second = draw_qc_mosaic(b.image, b.labels, three_colours(), o);
  ASSERT_EQ(first.width(), second.width());
  ASSERT_EQ(first.height(), second.height());
  for (int y = 0; y < first.height(); ++y)
    for (int x = 0; x < first.width(); ++x) ASSERT_EQ(first.at(x, y), second.at(x, y)) << x << ", " << y;
}

TEST(QcMosaic, LegendNamesWhatIsThere) {
  const Made m = marked_block("RAS");
  const Canvas page = draw_qc_mosaic(m.image, m.labels, three_colours(), one_column());
  int swatches[3] = {};
  for (int y = 80 + 3 * 208; y < page.height(); ++y)
    for (int x = 0; x < page.width(); ++x) {
      const Colour c = page.at(x, y);
      swatches[0] += c == kLeft;
      swatches[1] += c == kFront;
      swatches[2] += c == kTop;
    }
  for (const int n : swatches) EXPECT_EQ(n, 12 * 12);
}

TEST(QcMosaic, ReferenceShowsDisagreementOfASlice) {
  Volume image, labels;
  image.voxels = zeros(Shape{1, 1, 30, 40, 1}, DType::f32, kCpu);
  labels.voxels = zeros(Shape{1, 1, 30, 40, 1}, DType::i32, kCpu);
  for (int i = 0; i < 1200; ++i) image.voxels.data<float>()[i] = static_cast<float>(i % 40 + 1);
  Volume reference = labels;
  reference.voxels = zeros(Shape{1, 1, 30, 40, 1}, DType::i32, kCpu);
  for (int y = 10; y < 20; ++y)
    for (int x = 5; x < 15; ++x) {
      labels.voxels.data<std::int32_t>()[y * 40 + x] = 2;
      reference.voxels.data<std::int32_t>()[y * 40 + x + 5] = 2;
    }
  QcOptions o;
  o.tile = 60;  // a slice: 120 pixels wide, 3 for each of its own
  o.reference = &reference;
  const Canvas page = draw_qc_mosaic(image, labels, three_colours(), o);
  double wrong = 0;
  for (int y = 0; y < page.height(); ++y)
    for (int x = 0; x < page.width(); ++x) {
      const Colour c = page.at(x, y);
      wrong += c[0] > 200 && c[1] < 90 && c[2] < 90;
    }
  EXPECT_DOUBLE_EQ(wrong, 100 * 9);  // 50 pixels of the slice on each side
  const Spot green = find(page, kFront, 0, 0.9);
  EXPECT_GT(green.pixels, 2 * 100 * 9 - 300);
}

TEST(QcMosaic, OddVolumes) {
  Made m = marked_block("RAS");
  m.image.voxels.data<float>()[20 * 20 * 10 + 210] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_NO_THROW(draw_qc_mosaic(m.image, m.labels, three_colours()));
  m.labels.voxels = zeros(m.labels.voxels.shape(), DType::i32, kCpu);  // nothing found
  EXPECT_NO_THROW(draw_qc_mosaic(m.image, m.labels, three_colours()));
  m.image.voxels = zeros(m.image.voxels.shape(), DType::f32, kCpu);  // nothing to see
  EXPECT_NO_THROW(draw_qc_mosaic(m.image, m.labels, three_colours()));
  Volume channels = m.image;
  channels.voxels = zeros(Shape{1, 20, 20, 20, 3}, DType::f32, kCpu);
  EXPECT_NO_THROW(draw_qc_mosaic(channels, m.labels, three_colours()));

  Volume other = m.labels;
  other.voxels = zeros(Shape{1, 20, 20, 19, 1}, DType::i32, kCpu);
  EXPECT_THROW(draw_qc_mosaic(m.image, other, three_colours()), Error);
  EXPECT_THROW(draw_qc_mosaic(m.labels, m.labels, three_colours()), Error);
  EXPECT_THROW(draw_qc_mosaic(m.image, marked_block("LIA").labels, three_colours()), Error);  // same size, another order
  QcOptions o;
  o.reference = &other;
  EXPECT_THROW(draw_qc_mosaic(m.image, m.labels, three_colours(), o), Error);
  o = {};
  o.columns = 0;
  EXPECT_THROW(draw_qc_mosaic(m.image, m.labels, three_colours(), o), Error);
}

TEST(QcMosaic, WritesThePicture) {
  const std::string path = (std::filesystem::path(testing::TempDir()) / fmt::format("vg_qc_{}.png", os::wall_seconds())).string();
  const Made m = marked_block("LIA");
  write_qc_mosaic(path, m.image, m.labels, three_colours(), one_column());
  const Canvas page = draw_qc_mosaic(m.image, m.labels, three_colours(), one_column());
  const PngPicture picture = read_png(path);
  ASSERT_EQ(picture.width, page.width());
  ASSERT_EQ(picture.height, page.height());
  ASSERT_EQ(picture.channels, 3);
  for (int y = 0; y < page.height(); ++y)
    for (int x = 0; x < page.width(); ++x)
      ASSERT_EQ(picture.samples[static_cast<std::size_t>(y * page.width() + x) * 3 + 1], page.at(x, y)[1]);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace vg
