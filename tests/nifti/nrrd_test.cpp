// NRRD: files of SimpleITK and pynrrd, headers by hand (detached, big endian, skips, no directions, channels), and what is refused.
#include <fstream>
#include <functional>

#include "nifti/image.h"
#include "nifti/volume.h"
#include "tensor/error.h"
#include "tests/nifti/fixture.h"

namespace vg {
namespace {

using test::Bytes;
using test::bytes_of;
using test::gz;
using test::join;
using test::TemporaryFolder;

struct Golden {
  const char* name;
  std::vector<std::int64_t> dim;
  int components;
  double affine[12];
  std::vector<double> voxels;
  const char* hex;
};
const Golden kGolden[] = {
#include "tests/nifti/nrrd_golden.inc"
};

Bytes from_hex(const std::string& text) {
  Bytes out;
  for (std::size_t n = 0; n < text.size(); n += 2) out.push_back(static_cast<std::byte>(std::stoi(text.substr(n, 2), nullptr, 16)));
  return out;
}
Image parse(const Bytes& b) { return parse_image(std::span<const std::byte>(b), "x.nrrd"); }
std::vector<double> voxels_of(const Image& image) {
  std::vector<double> out;
  with_number(image.type, [&]<class T>() {
    const T* v = reinterpret_cast<const T*>(image.voxels());
    out.assign(v, v + image.elements());
  });
  return out;
}
void save(const std::string& path, const Bytes& b) {
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(b.data()), static_cast<std::streamsize>(b.size()));
}

TEST(Nrrd, FilesOfItkAndPynrrd) {
  TemporaryFolder folder;
  for (const Golden& g : kGolden) {
    SCOPED_TRACE(g.name);
    const Image image = parse(from_hex(g.hex));
    std::vector<std::int64_t> dim = g.dim;
    if (g.components > 1) dim.push_back(g.components);
    EXPECT_EQ(image.dim, dim);
    EXPECT_EQ(voxels_of(image), g.voxels);
    for (int n = 0; n < 12; ++n) EXPECT_NEAR(image.place.affine.m[n / 4][n % 4], g.affine[n], 1e-6) << n;
    EXPECT_EQ(image.place.source, TransformSource::directions);
    EXPECT_TRUE(image.warnings.empty());
    save(folder / g.name, from_hex(g.hex));
    EXPECT_EQ(read_volume(folder / g.name).channels(), g.components);
    const Image header = read_image_header(folder / g.name);
    EXPECT_EQ(header.dim, image.dim);
    EXPECT_EQ(header.place.affine, image.place.affine);
    write_volume(folder / "back.nii.gz", read_volume(folder / g.name));
    EXPECT_LT(corner_distance(image.size(), read_image(folder / "back.nii.gz").place.affine, image.place.affine), 1e-4);
  }
}

const std::string kTop = "NRRD0004\n# made by hand\ntype: short\ndimension: 3\nsizes: 2 3 2\n";
const std::string kPlace = "space: left-posterior-superior\nspace directions: (1,0,0) (0,2,0) (0,0,3)\nspace origin: (4,5,6)\n";
Bytes voxels(bool big = false) {  // 1..12
  Bytes b;
  for (int n = 1; n <= 12; ++n) {
    b.push_back(static_cast<std::byte>(big ? 0 : n));
    b.push_back(static_cast<std::byte>(big ? n : 0));
  }
  return b;
}
std::vector<double> counted() { return {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}; }

TEST(Nrrd, EncodingsAndSkips) {
  const std::string little = kTop + kPlace + "endian: little\n", big = kTop + kPlace + "endian: big\n";
  const Bytes junk = bytes_of("line one\nline two\n");
  const struct {
    const char* what;
    Bytes file;
  } cases[] = {
      {"raw", join(bytes_of(little + "encoding: raw\n\n"), voxels())},
      {"big endian", join(bytes_of(big + "encoding: raw\n\n"), voxels(true))},
      {"gzip", join(bytes_of(little + "encoding: gzip\n\n"), gz(voxels()))},
      {"gz", join(bytes_of(little + "encoding: gz\n\n"), gz(voxels()))},
      {"line ends of Windows",
       join(bytes_of(
                "NRRD0004\r\ntype: int16\r\ndimension: 3\r\nsizes: 2 3 2\r\nspace: LPS\r\nspace directions: (1,0,0) (0, 2, 0) (0,0,3)\r\n"
                "space origin: (4,5,6)\r\nendian: little\r\nencoding: raw\r\n\r\n"),
            voxels())},
      {"key and value", join(bytes_of(little + "encoding: raw\nsome key:=a value: with a colon\n\n"), voxels())},
      {"line skip", join(join(bytes_of(little + "encoding: raw\nline skip: 2\n\n"), junk), voxels())},
      {"byte skip", join(join(bytes_of(little + "encoding: raw\nbyteskip: 18\n\n"), junk), voxels())},
      {"byte skip -1", join(join(bytes_of(little + "encoding: raw\nbyte skip: -1\n\n"), junk), voxels())},
      {"byte skip in gzip", join(bytes_of(little + "encoding: gzip\nbyte skip: 18\n\n"), gz(join(junk, voxels())))},
      {"odd place", join(bytes_of(little + "encoding: raw\ncontent: x\n\n"), voxels())},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.what);
    const Image image = parse(c.file);
    EXPECT_EQ(voxels_of(image), counted());
    EXPECT_TRUE(image.warnings.empty());
    const double wanted[3][4] = {{-1, 0, 0, -4}, {0, -2, 0, -5}, {0, 0, 3, 6}};
    for (int r = 0; r < 3; ++r)
      for (int k = 0; k < 4; ++k) EXPECT_EQ(image.place.affine.m[r][k], wanted[r][k]);
    if (std::string(c.what) == "byte skip -1") continue;  // "the last bytes of the file": what is cut off does not show
    for (std::size_t cut = 1; cut < 20; cut += 6)
      EXPECT_THROW(parse(Bytes(c.file.begin(), c.file.end() - static_cast<std::ptrdiff_t>(cut))), Error);
  }
}

TEST(Nrrd, VoxelsInAnotherFile) {
  TemporaryFolder folder;
  const std::string head = kTop + kPlace + "endian: little\n";
  save(folder / "v.raw", voxels());
  save(folder / "v.raw.gz", gz(voxels()));
  save(folder / "a.nhdr", bytes_of(head + "encoding: raw\ndata file: v.raw\n"));
  save(folder / "b.nhdr", bytes_of(head + "encoding: gzip\ndatafile: ./v.raw.gz\n\n"));
  for (const char* name : {"a.nhdr", "b.nhdr"}) {
    EXPECT_EQ(voxels_of(read_image(folder / name)), counted()) << name;
    EXPECT_EQ(read_image_header(folder / name).dim.size(), 3u);
  }
  for (const char* other : {"/etc/passwd", "../v.raw", "a/../../v.raw", "LIST", "v%d.raw 1 2 1", "absent.raw", "."}) {
    save(folder / "bad.nhdr", bytes_of(head + "encoding: raw\ndata file: " + other + "\n"));
    EXPECT_THROW(read_image(folder / "bad.nhdr"), Error) << other;
  }
  EXPECT_THROW(parse(bytes_of(head + "encoding: raw\ndata file: v.raw\n")), Error) << "from memory there is no other file";
}

TEST(Nrrd, ChannelsAndGuesses) {
  const std::string end = "endian: little\nencoding: raw\n\n";
  const Bytes first =
      join(bytes_of("NRRD0004\ntype: short\ndimension: 4\nsizes: 2 3 2 1\nkinds: vector domain domain domain\n" + end), voxels());
  const Image a = parse(first);
  EXPECT_EQ(a.dim, (std::vector<std::int64_t>{3, 2, 1, 2}));
  EXPECT_EQ(voxels_of(a), (std::vector<double>{1, 3, 5, 7, 9, 11, 2, 4, 6, 8, 10, 12}));
  EXPECT_TRUE(has_warning(a.warnings, "no_orientation"));
  const Image slice = parse(
      join(bytes_of("NRRD0004\ntype: short\ndimension: 3\nsizes: 2 3 2\nkinds: list space space\nspacings: nan 0.5 2\n" + end), voxels()));
  EXPECT_EQ(slice.dim, (std::vector<std::int64_t>{3, 2, 1, 2}));
  EXPECT_EQ(spacing_of(slice.place.affine), (Vec3{0.5, 2, 1}));
  const Image middle = parse(join(
      bytes_of("NRRD0004\ntype: short\ndimension: 4\nsizes: 2 3 1 2\nspace: RAS\nspace directions: (1,0,0) none (0,1,0) (0,0,1)\n" + end),
      voxels()));
  EXPECT_EQ(middle.dim, (std::vector<std::int64_t>{2, 1, 2, 3}));
  EXPECT_EQ(voxels_of(middle), (std::vector<double>{1, 2, 7, 8, 3, 4, 9, 10, 5, 6, 11, 12}));
  const Image guess = parse(join(bytes_of(kTop + "spacings: 1 2 0\n" + end), voxels()));
  EXPECT_TRUE(has_warning(guess.warnings, "no_orientation"));
  EXPECT_TRUE(has_warning(guess.warnings, "bad_spacing"));
  const Image unnamed = parse(join(bytes_of(kTop + "space dimension: 3\nspace directions: (1,0,0) (0,2,0) (0,0,3)\n" + end), voxels()));
  EXPECT_TRUE(has_warning(unnamed.warnings, "no_orientation"));
  EXPECT_EQ(unnamed.place.source, TransformSource::none);
}

TEST(Nrrd, DamagedHeaders) {
  const std::string good = kTop + kPlace + "endian: little\nencoding: raw\n\n";
  const struct {
    std::string from, to;
    const char* says;
  } rows[] = {
      {"NRRD0004", "NRRD0009", "NRRD0001"},
      {"type: short", "type: block", "type: block"},
      {"type: short\n", "", "without the field \"type\""},
      {"dimension: 3", "dimension: 9", "dimension: 9"},
      {"dimension: 3", "dimension: -1", "dimension: -1"},
      {"dimension: 3", "dimension: x", "whole numbers"},
      {"dimension: 3", "dimension: 2", "as dimension says"},
      {"sizes: 2 3 2", "sizes: 2 0 2", "at least 1"},
      {"sizes: 2 3 2", "sizes: 2 -3 2", "at least 1"},
      {"sizes: 2 3 2", "sizes: 2 3", "as dimension says"},
      {"sizes: 2 3 2", "sizes: 9223372036854775807 9223372036854775807 2", "2^60"},
      {"sizes: 2 3 2", "sizes: 20000 20000 20000", "truncated"},
      {"sizes: 2 3 2", "sizes: 99999999999999999999 1 1", "whole numbers"},
      {"encoding: raw", "encoding: bzip2", "bzip2"},
      {"encoding: raw", "encoding: ascii", "wanted raw or gzip"},
      {"encoding: raw", "encoding: gzip", ""},
      {"encoding: raw\n", "", "encoding"},
      {"endian: little\n", "", "endian"},
      {"endian: little", "endian: middle", "little or big"},
      {"(0,2,0)", "(0,2)", "numbers"},
      {"(0,2,0)", "(0,2,0", "vector"},
      {"(0,2,0)", "(0,x,0)", "numbers"},
      {"(0,2,0)", "none", "vectors for three axes"},
      {"(0,2,0)", "(nan,2,0)", "NaN"},
      {"(0,2,0)", "(1,0,0)", "singular"},
      {" (0,0,3)", "", "for each axis"},
      {"(4,5,6)", "(4,5)", "numbers"},
      {"(4,5,6)", "none", "one vector"},
      {"left-posterior-superior", "left-posterior-superior-time", "space"},
      {"encoding: raw", "encoding: raw\nbyte skip: -2", "byte skip"},
      {"encoding: raw", "encoding: raw\nbyte skip: 9000000000000000000", "byte skip"},
      {"encoding: raw", "encoding: raw\nline skip: 50", "line skip"},
      {"encoding: raw", "encoding: raw\na line without the sign", "without a colon"},
      {"raw\n\n", "raw\n", ""},
  };
  EXPECT_EQ(voxels_of(parse(join(bytes_of(good), voxels()))), counted());
  for (const auto& row : rows) {
    SCOPED_TRACE(row.to);
    std::string text = good;
    ASSERT_NE(text.find(row.from), std::string::npos);
    text.replace(text.find(row.from), row.from.size(), row.to);
    try {
      parse(join(bytes_of(text), voxels()));
      ADD_FAILURE() << "accepted";
    } catch (const Error& e) {
      EXPECT_EQ(std::string(e.what()).find("x.nrrd"), 0u) << e.what();
      EXPECT_NE(std::string(e.what()).find(row.says), std::string::npos) << e.what();
    }
  }
  const Bytes whole = join(bytes_of(good), voxels());
  try {
    parse(gz(whole));
    ADD_FAILURE() << "gzip around it all";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("encoding: gzip"), std::string::npos) << e.what();
  }
  for (std::size_t n = 0; n < whole.size(); ++n)
    EXPECT_THROW(parse(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n))), Error) << n;
  int accepted = 0;
  for (std::size_t at = 0; at < good.size(); ++at)
    for (int v : {0, 10, 32, 48, 57, 128, 255}) {
      Bytes b = whole;
      b[at] = static_cast<std::byte>(v);
      try {
        EXPECT_LE(parse(b).bytes(), whole.size());
        ++accepted;
      } catch (const Error& e) {
        EXPECT_EQ(std::string(e.what()).find("x.nrrd: "), 0u) << e.what();
      }
    }
  EXPECT_GT(accepted, 50);
}

}  // namespace
}  // namespace vg
