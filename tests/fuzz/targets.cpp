// Fuzz targets of nifti/: what is accepted must be consistent with itself, with the header read alone, and with what we write from it.
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "nifti/deflate.h"
#include "nifti/dicom_series.h"
#include "nifti/files.h"
#include "nifti/gzip.h"
#include "nifti/header.h"
#include "nifti/lut.h"
#include "nifti/png.h"
#include "nifti/volume.h"
#include "nifti/zip.h"
#include "tests/fuzz/target.h"
#include "tests/nifti/fixture.h"

namespace vg::fuzz {
namespace {

constexpr PixelOptions kAnyPixel{.luminance = true, .magnitude = true};

Bytes copy_of(const Buffer& b) { return {b.data(), b.data() + b.size()}; }
std::shared_ptr<Buffer> shared(Input input) {
  auto b = std::make_shared<Buffer>(input.size());
  if (!input.empty()) std::memcpy(b->data(), input.data(), input.size());
  return b;
}
bool same_voxels(const Image& a, const Image& b) {
  return a.type == b.type && a.dim == b.dim && std::memcmp(a.voxels(), b.voxels(), a.bytes()) == 0;
}
void use(const Image& image) {
  promise(image.elements() > 0 && image.storage && image.offset + image.bytes() <= image.storage->size(), "voxels outside the storage");
  promise(image.offset % size_of(image.type) == 0, "voxels are not aligned");
  promise(is_finite(image.place.affine) && !is_singular(image.place.affine), "a place that cannot be inverted");
  promise(orientation_of(image.place.affine) != "???", "a place without directions");
  const Volume first = to_volume(image, {.frame = 0});
  promise(first.grid().voxels() * image.frames() == image.elements(), "a volume of another size");
  accepted([&] { to_labels(image, {.frame = image.frames() - 1}); });
}

// ---- NIfTI

void nifti(Input input) {
  const Image image = parse_image(input, "f.nii", kAnyPixel);
  use(image);
  if (is_gzip(input) || image.format[1] != 'I') return;
  const Image header = files::parse_nifti_header(input, false, "f.nii", kAnyPixel);
  promise(header.dim == image.dim && header.type == image.type && header.place.affine == image.place.affine, "the header read alone differs");
  const Buffer written = encode_image(image, 0);
  const Image back = parse_image({written.data(), written.size()}, "g.nii");
  promise(same_voxels(image, back), "written and read back: other voxels");
  promise(back.extensions.size() == image.extensions.size(), "written and read back: other extensions");
}
std::vector<Bytes> nifti_seeds() {
  std::vector<Bytes> seeds;
  for (const bool big : {false, true}) {
    seeds.push_back(test::RawNifti(big).bytes());
    seeds.push_back(test::raw_nifti2(big).bytes());
    seeds.push_back(test::RawNifti(big).set<std::int16_t>(254, 0).qform(0.1f, 0.2f, 0.3f).bytes());
    seeds.push_back(test::RawNifti(big).set<float>(112, 2).set<float>(116, -1).bytes());
    seeds.push_back(test::RawNifti(big).insert(32).set<std::int32_t>(352, 16).set<std::int32_t>(356, 6).set<std::int32_t>(368, 16).text(348, "\1").bytes());
  }
  for (const auto& [code, size] : {std::pair{2, 1}, {8, 4}, {64, 8}, {1024, 8}, {128, 3}, {2304, 4}, {32, 8}, {1792, 16}})
    seeds.push_back(test::RawNifti().set<std::int16_t>(70, static_cast<std::int16_t>(code)).set<std::int16_t>(72, static_cast<std::int16_t>(8 * size)).resize(352 + 24 * static_cast<std::size_t>(size)).bytes());
  seeds.push_back(test::RawNifti().set<std::int16_t>(40, 4).set<std::int16_t>(46, 2).set<std::int16_t>(48, 2).bytes());
  seeds.push_back(test::RawNifti().text(345, "i").bytes());
  return seeds;
}

// ---- .hdr and .img: the first half of the input is the header file, the rest the voxels

void pair(Input input) {
  if (input.size() < 2) fail(ErrorCode::bad_file, "f.hdr: empty");
  const std::size_t cut = std::min<std::size_t>(input.size() - 2, static_cast<std::size_t>(input[0]) | static_cast<std::size_t>(input[1]) << 8);
  const auto voxels = [&] { return std::pair{shared(input.subspan(2 + cut)), std::string("f.img")}; };
  use(files::parse_pair(shared(input.subspan(2, cut)), voxels, "f.hdr", "f.hdr", kAnyPixel));
}
std::vector<Bytes> pair_seeds() {
  std::vector<Bytes> seeds;
  const auto join = [&](const Bytes& head, const Bytes& voxels) {
    const Bytes front = {static_cast<std::byte>(head.size() & 255), static_cast<std::byte>(head.size() >> 8)};
    seeds.push_back(test::join(test::join(front, head), voxels));
  };
  for (const bool big : {false, true}) {
    const Bytes whole = test::RawNifti(big).text(344, "ni1").set<float>(108, 0).bytes();
    const Bytes head(whole.begin(), whole.begin() + 348), voxels(whole.begin() + 352, whole.end());
    join(head, voxels);
    join(test::gz(head), voxels);
    join(head, test::gz(voxels));
    Bytes extended(head.begin(), head.end());
    extended.resize(348 + 4 + 16);
    extended[348] = std::byte{1}, extended[big ? 355 : 352] = std::byte{16}, extended[big ? 359 : 356] = std::byte{6};
    join(extended, voxels);
  }
  return seeds;
}

// ---- gzip: zlib's own reader of whole members is the judge of what must be accepted

void gzip_stream(Input input) {
  Bytes oracle(1 << 16);
  z_stream z{};
  if (inflateInit2(&z, 15 + 16) != Z_OK) return;
  z.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(input.data())), z.avail_in = static_cast<uInt>(input.size());
  z.next_out = reinterpret_cast<Bytef*>(oracle.data()), z.avail_out = static_cast<uInt>(oracle.size());
  const bool good = inflate(&z, Z_FINISH) == Z_STREAM_END && z.avail_in == 0 && is_gzip(input);
  oracle.resize(z.total_out);
  inflateEnd(&z);
  const std::size_t needed = good ? oracle.size() : 400;
  Warnings warnings;
  const bool read = accepted([&] {
    const Buffer out = gunzip(input, needed, "f.gz", warnings);
    promise(out.size() >= needed, "fewer bytes than were asked for");
    promise(!good || copy_of(out) == oracle, "other bytes than zlib's");
  });
  promise(read || !good, "zlib reads what we refuse");
  if (input.size() > 10) {  // the rest as a deflate stream, in a member whose checksum is right
    Bytes plain(1 << 16);
    z_stream raw{};
    if (inflateInit2(&raw, -15) != Z_OK) return;
    raw.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(input.data())) + 10, raw.avail_in = static_cast<uInt>(input.size() - 10);
    raw.next_out = reinterpret_cast<Bytef*>(plain.data()), raw.avail_out = static_cast<uInt>(plain.size());
    const bool ends = inflate(&raw, Z_FINISH) == Z_STREAM_END;
    plain.resize(raw.total_out);
    Bytes member = bytes_of(std::string("\x1f\x8b\x08\0\0\0\0\0\0\3", 10));
    member.insert(member.end(), input.begin() + 10, input.begin() + 10 + static_cast<std::ptrdiff_t>(raw.total_in));
    inflateEnd(&raw);
    const std::uint32_t trailer[2] = {static_cast<std::uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(plain.data()), static_cast<uInt>(plain.size()))), static_cast<std::uint32_t>(plain.size())};
    const auto* t = reinterpret_cast<const std::byte*>(trailer);
    member.insert(member.end(), t, t + 8);
    if (ends) promise(copy_of(gunzip(member, plain.size(), "f.gz", warnings)) == plain, "a deflate stream that zlib reads otherwise");
  }
  accepted([&] { promise(gunzip_prefix(input, 100, "f.gz").size() <= 100, "more than was asked for"); });
  use(parse_image(input, "f.nii.gz", kAnyPixel));
}
std::vector<Bytes> gzip_seeds() {
  const Bytes file = test::RawNifti().bytes();
  std::vector<Bytes> seeds = {test::gz(file), test::gz(file, 0), test::gz(file, 9)};
  seeds.push_back(test::join(test::gz(Bytes(file.begin(), file.begin() + 200)), test::gz(Bytes(file.begin() + 200, file.end()))));
  seeds.push_back(test::join(test::gz(file), Bytes(16)));
  const Buffer ours = gzip(file, 1);
  seeds.push_back(copy_of(ours));
  Bytes named = test::gz(file);
  named[3] = std::byte{4 + 8};
  const Bytes fields = bytes_of(std::string("\3\0abcname\0", 10));
  named.insert(named.begin() + 10, fields.begin(), fields.end());
  seeds.push_back(named);
  return seeds;
}

// ---- our own packer

void deflate(Input input) {
  Bytes plain(input.begin(), input.end());
  if (plain.size() >= 2) {  // long files from short inputs: the input again and again
    const std::size_t times = 1 + static_cast<std::size_t>(plain[0]) % 40;
    for (std::size_t n = 1; n < times; ++n) plain.insert(plain.end(), input.begin(), input.end() - static_cast<std::ptrdiff_t>(n % input.size()));
  }
  const Buffer packed = gzip(plain, 1);
  Warnings warnings;
  promise(copy_of(gunzip({packed.data(), packed.size()}, plain.size(), "f.gz", warnings)) == plain && warnings.empty(), "packed and unpacked: other bytes");
}
std::vector<Bytes> deflate_seeds() { return {Bytes(300), test::RawNifti().bytes(), bytes_of("abcabcabcabcabcabcabcdabcabc"), test::gz(Bytes(5000))}; }

// ---- MGH

void mgh(Input input) {
  const Image image = parse_image(input, "f.mgz", kAnyPixel);
  use(image);
  constexpr Number kWritten[] = {Number::u8, Number::i16, Number::i32, Number::f32};  // uint16 is read alone
  if (image.format[0] != 'M' || std::find(std::begin(kWritten), std::end(kWritten), image.type) == std::end(kWritten)) return;
  const Buffer written = encode_mgh(image, 0);
  promise(same_voxels(image, parse_image({written.data(), written.size()}, "g.mgh")), "written and read back: other voxels");
}
std::vector<Bytes> mgh_seeds() {
  std::vector<Bytes> seeds;
  for (const Number type : {Number::u8, Number::i16, Number::i32, Number::f32})
    for (const std::int64_t frames : {1, 2}) {
      Image image;
      image.name = "seed", image.type = type, image.dim = {2, 3, 4};
      if (frames > 1) image.dim.push_back(frames);
      image.storage = std::make_shared<Buffer>(image.bytes());
      std::memset(image.storage->data(), 1, image.bytes());
      seeds.push_back(copy_of(encode_mgh(image, 0)));
    }
  seeds.push_back(test::gz(seeds[0]));
  seeds.push_back(seeds[1]);
  seeds.back()[29] = std::byte{0};  // goodRASFlag
  return seeds;
}

// ---- NRRD

void nrrd(Input input) {
  if (!files::is_nrrd(input)) fail(ErrorCode::bad_file, "f.nrrd: no NRRD");
  use(parse_image(input, "f.nrrd"));
}
std::vector<Bytes> nrrd_seeds() {
  const std::string head = "NRRD0004\n# c\ntype: short\ndimension: 3\nsizes: 2 3 4\nendian: little\n";
  const std::string place = "space: left-posterior-superior\nspace directions: (1,0,0) (0,2,0) (0,0,3)\nspace origin: (1,2,3)\n";
  const std::string voxels(48, '\1');
  std::vector<Bytes> seeds = {bytes_of(head + "encoding: raw\n\n" + voxels), bytes_of(head + place + "encoding: raw\n\n" + voxels),
                              test::join(bytes_of(head + place + "encoding: gzip\n\n"), test::gz(Bytes(48)))};
  seeds.push_back(bytes_of("NRRD0005\r\ntype: uint8\r\ndimension: 4\r\nspace: RAS\r\nsizes: 2 2 3 4\r\nspace directions: none (1,0,0) (0,1,0) (0,0,1)\r\nkinds: vector domain domain domain\r\nencoding: raw\r\nkey:=value\r\n\r\n" + voxels));
  seeds.push_back(bytes_of("NRRD0001\ntype: float\ndimension: 2\nsizes: 3 4\nspacings: 1 nan\nendian: big\nencoding: raw\nbyte skip: -1\n\n" + voxels));
  seeds.push_back(bytes_of("NRRD0004\ntype: double\ndimension: 3\nsizes: 1 2 3\nspace: RAS\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nendian: big\nline skip: 1\nbyte skip: 2\nencoding: raw\n\nskip\n.." + voxels));
  return seeds;
}

// ---- PNG

void check_picture(Input input) {
  const PngPicture p = parse_png(input.data(), input.size(), "f.png");
  promise(p.width > 0 && p.height > 0 && p.samples.size() == static_cast<std::size_t>(p.width * p.height * p.channels), "samples do not fill the picture");
  promise(png_to_volume(p).voxels.elements() == p.width * p.height, "a volume of another size");
  accepted([&] { png_to_labels(p); });
}
// The same chunks with right checksums, so that changed bytes get past them.
Bytes with_checksums(Input input) {
  Bytes b(input.begin(), input.end());
  const auto big = [&](std::size_t at) { return std::to_integer<std::uint32_t>(b[at]) << 24 | std::to_integer<std::uint32_t>(b[at + 1]) << 16 | std::to_integer<std::uint32_t>(b[at + 2]) << 8 | std::to_integer<std::uint32_t>(b[at + 3]); };
  for (std::size_t at = 8; at + 12 <= b.size();) {
    const std::size_t length = big(at), end = at + 8 + length;
    if (end + 4 > b.size()) break;
    const auto crc = static_cast<std::uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(&b[at + 4]), static_cast<uInt>(length + 4)));
    for (std::size_t n = 0; n < 4; ++n) b[end + n] = static_cast<std::byte>(crc >> (24 - 8 * n));
    at = end + 4;
  }
  return b;
}
void png(Input input) {
  if (!accepted([&] { check_picture(input); })) check_picture(with_checksums(input));
}
// PNG by hand, so that interlace, palettes and few bits are among the seeds.
Bytes png_of(std::uint32_t width, std::uint32_t height, int depth, int colour, bool interlaced, std::size_t raw_bytes) {
  std::string file("\x89PNG\r\n\x1a\n", 8);
  const auto big = [](std::uint32_t v) { return std::string{static_cast<char>(v >> 24), static_cast<char>(v >> 16), static_cast<char>(v >> 8), static_cast<char>(v)}; };
  const auto chunk = [&](const std::string& type, const std::string& data) {
    const std::string body = type + data;
    file += big(static_cast<std::uint32_t>(data.size())) + body + big(static_cast<std::uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(body.data()), static_cast<uInt>(body.size()))));
  };
  chunk("IHDR", big(width) + big(height) + std::string{static_cast<char>(depth), static_cast<char>(colour), 0, 0, static_cast<char>(interlaced)});
  if (colour == 3) chunk("PLTE", std::string(3 << depth, 'p')), chunk("tRNS", "\1\2");
  const std::string raw(raw_bytes, '\0');
  std::string packed(compressBound(raw.size()), '\0');
  uLongf size = packed.size();
  compress(reinterpret_cast<Bytef*>(packed.data()), &size, reinterpret_cast<const Bytef*>(raw.data()), raw.size());
  chunk("IDAT", packed.substr(0, size));
  chunk("IEND", "");
  return bytes_of(file);
}
std::vector<Bytes> png_seeds() {
  return {png_of(3, 4, 8, 0, false, 16), png_of(3, 4, 16, 0, false, 28), png_of(9, 2, 1, 0, false, 6), png_of(5, 3, 2, 3, false, 9),
          png_of(5, 3, 8, 3, false, 18), png_of(2, 2, 8, 2, false, 14), png_of(2, 2, 16, 6, false, 34), png_of(2, 2, 8, 4, false, 10),
          png_of(1, 1, 8, 0, true, 2), png_of(8, 8, 8, 0, true, 79), png_of(8, 8, 4, 3, true, 79)};
}

// ---- DICOM: the elements of files, as the plug-in passes them on, files divided by a line "-"; and archives

void dicom_elements(Input input) {
  std::vector<dicom::Header> headers(1);
  const std::string text = text_of(input);
  for (std::size_t at = 0; at <= text.size() && headers.size() < 100;) {
    const std::size_t end = std::min(text.find("\n-\n", at), text.size());
    headers.back().name = "f" + std::to_string(headers.size());
    dicom::add_record(headers.back(), text.substr(at, end - at));
    at = end + 3;
    if (at <= text.size()) headers.emplace_back();
  }
  bool any = false;
  for (const dicom::Series& series : dicom::group(headers))
    any |= accepted([&] {
      const dicom::Stack s = dicom::stack(headers, series);
      promise(is_finite(s.place.affine) && !is_singular(s.place.affine), "a place that cannot be inverted");
      promise(static_cast<std::int64_t>(s.slices.size()) == s.size[2] * s.times, "slices that do not fill the volume");
      for (const dicom::Slice& slice : s.slices) {
        promise(slice.file < headers.size() && slice.frame >= 0 && slice.frame < s.frames_of(slice.file, headers), "a slice of no file");
        promise(std::isfinite(slice.slope) && std::isfinite(slice.inter), "a scaling that is no number");
      }
      std::vector<std::byte> pixels(64, std::byte{0xa5});
      dicom::clean_bits(pixels.data(), static_cast<std::int64_t>(pixels.size() / size_of(s.type)), s);
    });
  if (!any) fail(ErrorCode::bad_file, "f: no volume");
}
std::vector<Bytes> dicom_seeds() {
  const auto slice = [](int z, const std::string& more = "") {
    return "-1 0020 000e 1.2\n-1 0008 0018 1.2." + std::to_string(z) + "\n-1 0020 0013 " + std::to_string(z) +
           "\n-1 0028 0004 MONOCHROME2\n-1 0028 0010 3\n-1 0028 0011 4\n-1 0028 0100 16\n-1 0028 0101 12\n-1 0028 0102 11\n-1 0028 0103 1\n"
           "-1 0020 0037 1\\0\\0\\0\\1\\0\n-1 0028 0030 1\\2\n-1 0020 0032 0\\0\\" +
           std::to_string(z) + more;
  };
  std::string frames = "-1 0028 0004 MONOCHROME1\n-1 0028 0010 3\n-1 0028 0011 4\n-1 0028 0008 2\n-1 0028 0100 32\n-2 0020 0037 0\\1\\0\\0\\0\\-1\n-2 0028 0030 1\\2\n";
  frames += "0 0020 0032 1\\2\\3\n0 0028 1053 2\n1 0020 0032 2\\2\\3\n1 0028 1053 3\n";
  return {bytes_of(slice(1) + "\n-\n" + slice(2) + "\n-\n" + slice(3)), bytes_of(slice(1, "\n-1 0018 0050 2\n-1 0028 1053 0.5\n-1 0028 1052 -3")),
          bytes_of(slice(1) + "\n-\n" + slice(2) + "\n-\n" + slice(1, "\n-1 0008 0018 9\n-1 0020 0100 2") + "\n-\n" + slice(2, "\n-1 0008 0018 8\n-1 0020 0100 2")), bytes_of(frames),
          bytes_of(slice(1, "\n-1 0028 0008 2\n-1 3004 000c 0\\5\n-1 3004 000e 0.1"))};
}

void zip(Input input) {
  for (const ZipEntry& e : zip_entries(input, "f.zip")) {
    const Buffer plain = zip_read(input, e, "f.zip");
    promise(plain.size() == e.plain, "an entry of another size");
  }
}
std::vector<Bytes> zip_seeds() {
  const auto le = [](std::size_t v, int n) {
    std::string s;
    for (int b = 0; b < n; ++b, v >>= 8) s += static_cast<char>(v);
    return s;
  };
  std::vector<Bytes> seeds;
  for (const bool packed : {false, true}) {
    const std::string plain(40, 'z');
    std::string data = plain;
    if (packed) {
      data.resize(64);
      z_stream z{};
      deflateInit2(&z, 6, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY);
      z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(plain.data())), z.avail_in = 40;
      z.next_out = reinterpret_cast<Bytef*>(data.data()), z.avail_out = 64;
      deflate(&z, Z_FINISH);
      data.resize(z.total_out);
      deflateEnd(&z);
    }
    const std::string facts = le(0, 2) + le(packed ? 8 : 0, 2) + le(0, 4) + le(crc32(0, reinterpret_cast<const Bytef*>(plain.data()), 40), 4) + le(data.size(), 4) + le(40, 4) + le(1, 2) + le(0, 2);
    const std::string local = "PK\3\4" + le(20, 2) + facts + "a" + data, entry = "PK\1\2" + le(20, 2) + le(20, 2) + facts + le(0, 14) + "a";
    seeds.push_back(bytes_of(local + entry + "PK\5\6" + le(0, 4) + le(1, 2) + le(1, 2) + le(entry.size(), 4) + le(local.size(), 4) + le(0, 2)));
  }
  return seeds;
}

// ---- tables of labels

void lut(Input input) {
  const Lut table = parse_lut(text_of(input), "f.txt");
  table.pairs();
  for (const LutForm form : {LutForm::freesurfer, LutForm::itk_snap, LutForm::bids, LutForm::niivue, LutForm::slicer}) {
    const Lut back = parse_lut(to_text(table, form), "g.txt");
    promise(back.entries.size() == table.entries.size(), "written and read back: another number of labels");
    for (const auto& [id, entry] : table.entries) promise(back.contains(id) && back.colour(id) == entry.colour, "written and read back: another label");
  }
}
std::vector<Bytes> lut_seeds() {
  Lut table;
  table.entries = {{0, {"Unknown", {0, 0, 0}, 0}}, {10, {"Left-Thalamus", {0, 118, 14}, 0}}, {49, {"Right-Thalamus", {0, 118, 14}, 0}}, {1001, {"ctx-lh-x", {25, 100, 40}, 9}}};
  std::vector<Bytes> seeds;
  for (const LutForm form : {LutForm::freesurfer, LutForm::itk_snap, LutForm::bids, LutForm::niivue, LutForm::slicer}) seeds.push_back(bytes_of(to_text(table, form)));
  seeds.push_back(bytes_of("#c\r\n\r\n 4   Left-Lateral-Ventricle  120 18 134 0 \\\r\n"));
  return seeds;
}

constexpr Target kTargets[] = {{"nifti", nifti, nifti_seeds}, {"pair", pair, pair_seeds}, {"gzip", gzip_stream, gzip_seeds},
                               {"deflate", deflate, deflate_seeds}, {"mgh", mgh, mgh_seeds}, {"nrrd", nrrd, nrrd_seeds},
                               {"png", png, png_seeds}, {"lut", lut, lut_seeds},
                               {"dicom", dicom_elements, dicom_seeds}, {"zip", zip, zip_seeds}};

}  // namespace

std::span<const Target> targets() { return kTargets; }

}  // namespace vg::fuzz
