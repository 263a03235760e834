// NRRD, the format of 3D Slicer: a header of text lines, then the voxels, raw or gzip, behind it or in another file. Read only. Layout:
// "Definition of NRRD File Format" of the teem library.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <string_view>

#include "nifti/files.h"
#include "nifti/gzip.h"
#include "tensor/error.h"

namespace vg {
namespace {

using Words = std::vector<std::string>;
constexpr std::size_t kMostHeaderBytes = std::size_t{1} << 20;
constexpr std::size_t kMostAxes = 7;

std::string trimmed(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t' || s.back() == '\r')) s.remove_suffix(1);
  return std::string(s);
}
std::string lower(std::string s) {
  for (char& c : s)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  return s;
}
// The beginning of a header's text for messages: bytes that would disturb a terminal become '?'.
std::string shown(std::string_view text) {
  std::string s(text.substr(0, 79));
  for (char& c : s)
    if (static_cast<unsigned char>(c) < 32 || c == 127) c = '?';
  return s;
}
// Words between blanks; what stands in parentheses or quotes is one word.
Words words_of(const std::string& text) {
  Words out;
  bool open = false, quoted = false, inside = false;
  for (char c : text) {
    if (c == '(') open = true;
    if (c == '"') quoted = !quoted;
    const bool blank = (c == ' ' || c == '\t') && !quoted;
    if (blank && !open) {
      inside = false;
      continue;
    }
    if (!inside) out.emplace_back(), inside = true;
    if (!blank) out.back() += c;
    if (c == ')') open = false;
  }
  return out;
}

// The text part of a file.
struct Fields {
  std::string name;  // of the file
  std::map<std::string, std::string> values;
  std::size_t end = 0;  // the first byte behind the blank line
  bool blank_line = false;

  const std::string* find(const std::string& key) const {
    const auto at = values.find(key);
    return at == values.end() ? nullptr : &at->second;
  }
  const std::string& need(const std::string& key) const {
    const std::string* v = find(key);
    if (!v) fail(ErrorCode::bad_file, "{}: NRRD header without the field \"{}\"", name, key);
    return *v;
  }
  [[noreturn]] void refuse(const std::string& key, const char* wanted) const {
    fail(ErrorCode::bad_file, "{}: {}: {} (wanted {})", name, key, shown(need(key)), wanted);
  }
  double real(const std::string& key, const std::string& word) const {
    if (lower(word) == "nan") return std::nan("");
    double v = 0;
    const char* first = word.data() + (word.starts_with('+') ? 1 : 0);
    const auto [end, error] = std::from_chars(first, word.data() + word.size(), v);
    if (error != std::errc{} || end != word.data() + word.size()) refuse(key, "numbers");
    return v;
  }
  std::int64_t whole(const std::string& key, const std::string& word) const {
    std::int64_t v = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), v);
    if (error != std::errc{} || end != word.data() + word.size()) refuse(key, "whole numbers");
    return v;
  }
  // "(x,y,z)"; nullopt for "none".
  std::optional<Vec3> vector(const std::string& key, const std::string& word) const {
    if (lower(word) == "none") return std::nullopt;
    if (word.size() < 2 || word.front() != '(' || word.back() != ')') refuse(key, "vectors such as (1,0,0)");
    Vec3 v{};
    std::size_t at = 1;
    for (int r = 0; r < 3; ++r) {
      const std::size_t end = std::min(word.find(r < 2 ? ',' : ')', at), word.size());
      v[static_cast<std::size_t>(r)] = real(key, word.substr(at, end - at));
      at = end + 1;
    }
    if (at != word.size()) refuse(key, "three numbers in each vector");
    return v;
  }
};

Fields read_fields(std::span<const std::byte> bytes, const std::string& name) {
  Fields f;
  f.name = name;
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), std::min(bytes.size(), kMostHeaderBytes));
  constexpr std::size_t kMagic = 8;  // NRRD0001 .. NRRD0005
  if (text.size() < kMagic || text[7] < '1' || text[7] > '5')
    fail(ErrorCode::bad_file, "{}: NRRD magic \"{}\" (wanted NRRD0001 .. NRRD0005)", name, shown(text.substr(0, kMagic)));
  bool first = true;
  for (std::size_t at = 0; at < text.size(); first = false) {
    std::size_t end = text.find('\n', at);
    const bool complete = end != std::string_view::npos;
    if (!complete) end = text.size();
    const std::string line = trimmed(text.substr(at, end - at));
    at = end + (complete ? 1 : 0);
    f.end = at;
    if (line.empty() && complete) return f.blank_line = true, f;
    if (first || line.empty() || line.front() == '#' || line.find(":=") < line.find(": ")) continue;
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos) fail(ErrorCode::bad_file, "{}: NRRD header line without a colon: \"{}\"", name, shown(line));
    std::string key = lower(trimmed(std::string_view(line).substr(0, colon)));
    for (const auto& [other, standard] : {std::pair{"datafile", "data file"}, {"lineskip", "line skip"}, {"byteskip", "byte skip"}})
      if (key == other) key = standard;
    const bool list = key == "data file" && lower(trimmed(std::string_view(line).substr(colon + 1))).starts_with("list");
    f.values[key] = trimmed(std::string_view(line).substr(colon + 1));
    if (list) return f;
  }
  if (bytes.size() > kMostHeaderBytes) fail(ErrorCode::bad_file, "{}: NRRD header of more than {} bytes", name, kMostHeaderBytes);
  return f;
}

Number type_of(const Fields& f) {
  std::string t = lower(f.need("type"));
  if (t.ends_with("_t")) t.resize(t.size() - 2);
  static const std::map<std::string, Number> kTypes = {{"signed char", Number::i8},
                                                       {"int8", Number::i8},
                                                       {"uchar", Number::u8},
                                                       {"unsigned char", Number::u8},
                                                       {"uint8", Number::u8},
                                                       {"short", Number::i16},
                                                       {"short int", Number::i16},
                                                       {"signed short", Number::i16},
                                                       {"signed short int", Number::i16},
                                                       {"int16", Number::i16},
                                                       {"ushort", Number::u16},
                                                       {"unsigned short", Number::u16},
                                                       {"unsigned short int", Number::u16},
                                                       {"uint16", Number::u16},
                                                       {"int", Number::i32},
                                                       {"signed int", Number::i32},
                                                       {"int32", Number::i32},
                                                       {"uint", Number::u32},
                                                       {"unsigned int", Number::u32},
                                                       {"uint32", Number::u32},
                                                       {"longlong", Number::i64},
                                                       {"long long", Number::i64},
                                                       {"long long int", Number::i64},
                                                       {"signed long long", Number::i64},
                                                       {"signed long long int", Number::i64},
                                                       {"int64", Number::i64},
                                                       {"ulonglong", Number::u64},
                                                       {"unsigned long long", Number::u64},
                                                       {"unsigned long long int", Number::u64},
                                                       {"uint64", Number::u64},
                                                       {"float", Number::f32},
                                                       {"double", Number::f64}};
  const auto found = kTypes.find(t);
  if (found == kTypes.end()) fail(ErrorCode::unsupported, "{}: type: {} (wanted an integer type, float or double)", f.name, shown(t));
  return found->second;
}

// The file's axes in the image's order: the spatial ones first.
struct Axes {
  std::vector<std::int64_t> sizes;  // in the file's order
  std::vector<std::size_t> order;   // of the image's axes: which file axis
  std::size_t spatial = 0;          // how many of them are axes of space: the first ones
  bool in_order() const { return std::is_sorted(order.begin(), order.end()); }
};

Axes axes_of(const Fields& f, Number type) {
  Axes a;
  const std::int64_t count = f.whole("dimension", f.need("dimension"));
  if (count < 1 || count > static_cast<std::int64_t>(kMostAxes)) f.refuse("dimension", "1..7");
  std::int64_t total = static_cast<std::int64_t>(size_of(type));
  for (const std::string& w : words_of(f.need("sizes"))) {
    a.sizes.push_back(f.whole("sizes", w));
    if (a.sizes.back() < 1) f.refuse("sizes", "at least 1 along each axis");
    if (__builtin_mul_overflow(total, a.sizes.back(), &total) || total > (std::int64_t{1} << 60)) f.refuse("sizes", "less than 2^60 bytes");
  }
  if (static_cast<std::int64_t>(a.sizes.size()) != count) f.refuse("sizes", fmt::format("{} of them, as dimension says", count).c_str());
  std::vector<bool> spatial(a.sizes.size());
  if (const std::string* text = f.find("space directions")) {
    const Words vectors = words_of(*text);
    if (vectors.size() != a.sizes.size()) f.refuse("space directions", "one vector or \"none\" for each axis");
    for (std::size_t n = 0; n < vectors.size(); ++n) spatial[n] = f.vector("space directions", vectors[n]).has_value();
    if (std::count(spatial.begin(), spatial.end(), true) != 3) f.refuse("space directions", "vectors for three axes");
  } else if (const std::string* kinds = f.find("kinds")) {
    const Words k = words_of(*kinds);
    if (k.size() != a.sizes.size()) f.refuse("kinds", "one for each axis");
    for (std::size_t n = 0; n < k.size(); ++n) spatial[n] = lower(k[n]) == "domain" || lower(k[n]) == "space";
    if (std::count(spatial.begin(), spatial.end(), true) > 3) f.refuse("kinds", "three axes of space at most");
  } else {
    for (std::size_t n = 0; n < 3 && n < spatial.size(); ++n) spatial[n] = true;
  }
  a.spatial = static_cast<std::size_t>(std::count(spatial.begin(), spatial.end(), true));
  for (const bool wanted : {true, false})
    for (std::size_t n = 0; n < spatial.size(); ++n)
      if (spatial[n] == wanted) a.order.push_back(n);
  return a;
}

// World axes of the file -> RAS. nullopt: the file does not say what its axes mean.
std::optional<Vec3> signs_of(const Fields& f) {
  const std::string* space = f.find("space");
  if (!space) return std::nullopt;
  const std::string s = lower(*space);
  if (s == "right-anterior-superior" || s == "ras") return Vec3{1, 1, 1};
  if (s == "left-anterior-superior" || s == "las") return Vec3{-1, 1, 1};
  if (s == "left-posterior-superior" || s == "lps") return Vec3{-1, -1, 1};
  if (s == "scanner-xyz" || s == "3d-right-handed" || s == "3d-left-handed") return std::nullopt;
  fail(ErrorCode::unsupported, "{}: space: {} (wanted right-anterior-superior, left-anterior-superior or left-posterior-superior)", f.name,
       shown(s));
}

Placement place_of(const Fields& f, const Axes& axes, const Size3& size, Warnings& warnings) {
  const std::string* directions = f.find("space directions");
  if (!directions) {
    Vec3 spacing{1, 1, 1};
    if (const std::string* text = f.find("spacings")) {
      const Words w = words_of(*text);
      if (w.size() != axes.sizes.size()) f.refuse("spacings", "one for each axis");
      for (std::size_t a = 0; a < axes.spatial; ++a) {
        const double mm = std::abs(f.real("spacings", w[axes.order[a]]));
        if (mm > 0 && std::isfinite(mm))
          spacing[a] = mm;
        else
          warnings.push_back({"bad_spacing", fmt::format("spacing {} = {} mm: taken as 1", a + 1, mm)});
      }
    }
    return place_nowhere(spacing, size, f.name, "no space directions are given", warnings);
  }
  const Words vectors = words_of(*directions);
  const std::optional<Vec3> signs = signs_of(f);
  const Vec3 s = signs.value_or(Vec3{-1, -1, 1});  // what most programs write
  Vec3 origin{};
  if (const std::string* text = f.find("space origin")) {
    const Words w = words_of(*text);
    const auto given = w.size() == 1 ? f.vector("space origin", w[0]) : std::nullopt;
    if (!given) f.refuse("space origin", "one vector such as (0,0,0)");
    origin = *given;
  }
  Affine affine;
  for (std::size_t r = 0; r < 3; ++r) {
    affine.m[r][3] = s[r] * origin[r];
    for (std::size_t a = 0; a < 3; ++a) affine.m[r][a] = s[r] * (*f.vector("space directions", vectors[axes.order[a]]))[r];
  }
  Placement place = place_by_directions(affine, f.name, warnings);
  if (!signs) {
    warnings.push_back({"no_orientation", "the header names no patient space: left and right are a guess (LPS is taken)"});
    place.source = TransformSource::none, place.code = 0;
  }
  return place;
}

enum class Encoding { raw, gzip };
Encoding encoding_of(const Fields& f) {
  const std::string e = lower(f.need("encoding"));
  if (e == "raw") return Encoding::raw;
  if (e == "gzip" || e == "gz") return Encoding::gzip;
  fail(ErrorCode::unsupported, "{}: encoding: {} (wanted raw or gzip)", f.name, shown(e));
}

bool big_endian(const Fields& f, Number type) {
  if (size_of(type) == 1) return false;
  const std::string e = lower(f.need("endian"));
  if (e != "little" && e != "big") f.refuse("endian", "little or big");
  return e == "big";
}

// All facts of the header.
Image describe(const Fields& f, const Axes& axes, Warnings& warnings) {
  Image image;
  image.name = f.name;
  image.type = type_of(f);
  for (std::size_t n : axes.order) image.dim.push_back(axes.sizes[n]);
  if (axes.spatial < 3 && axes.order.size() > axes.spatial) {  // colours of a slice: channels are the fourth axis
    if (image.dim.size() + 3 - axes.spatial > kMostAxes) f.refuse("dimension", "fewer axes that are none of space");
    image.dim.insert(image.dim.begin() + static_cast<std::ptrdiff_t>(axes.spatial), 3 - axes.spatial, 1);
  }
  image.place = place_of(f, axes, image.size(), warnings);
  image.format = fmt::format("NRRD, {} endian{}{}", big_endian(f, image.type) ? "big" : "little",
                             encoding_of(f) == Encoding::gzip ? ", gzip" : "", f.find("data file") ? ", voxels in another file" : "");
  const Vec3 mm = spacing_of(image.place.affine);
  std::copy(mm.begin(), mm.end(), image.pixdim.begin() + 1);
  constexpr int kMillimetres = 2;
  image.units = kMillimetres;
  if (const std::string* content = f.find("content")) image.description = shown(*content);
  return image;
}

// Where a detached header's voxels lie: a name inside the header's own folder.
std::string data_path(const Fields& f, const std::string& header_path) {
  namespace fs = std::filesystem;
  const std::string& given = f.need("data file");
  if (header_path.empty())
    fail(ErrorCode::unsupported, "{}: the voxels are in another file ({}): wanted them in the same one", f.name, shown(given));
  if (lower(given).starts_with("list") || given.find('%') != std::string::npos)
    fail(ErrorCode::unsupported, "{}: data file: {} (wanted one file, not a list)", f.name, shown(given));
  const fs::path relative = fs::path(given).lexically_normal();
  if (relative.empty() || relative.is_absolute() || *relative.begin() == "..")
    fail(ErrorCode::bad_file, "{}: data file: {} (wanted a name inside the header's own folder)", f.name, shown(given));
  return (fs::path(header_path).parent_path() / relative).string();
}

// Voxels from the file's order of axes into the image's.
void permute(Image& image, const Axes& axes) {
  const std::size_t unit = size_of(image.type), count = axes.order.size();
  std::vector<std::size_t> stride(count), extent(count), at(count);
  for (std::size_t a = 0; a < count; ++a) {
    stride[a] = unit;
    for (std::size_t n = 0; n < axes.order[a]; ++n) stride[a] *= static_cast<std::size_t>(axes.sizes[n]);
    extent[a] = static_cast<std::size_t>(axes.sizes[axes.order[a]]);
  }
  auto out = std::make_shared<Buffer>(image.bytes());
  const std::byte* in = image.voxels();
  std::size_t from = 0;
  for (std::byte *to = out->data(), *end = to + image.bytes(); to < end; to += unit) {
    std::memcpy(to, in + from, unit);
    for (std::size_t a = 0; a < count; ++a) {
      from += stride[a];
      if (++at[a] < extent[a]) break;
      from -= stride[a] * extent[a], at[a] = 0;
    }
  }
  image.storage = std::move(out), image.offset = 0;
}

void refuse_wrapped(bool packed, const std::string& name) {
  if (packed) fail(ErrorCode::unsupported, "{}: gzip around a whole NRRD file (wanted gzip inside it: \"encoding: gzip\")", name);
}

}  // namespace

namespace files {

bool is_nrrd(std::span<const std::byte> start) { return start.size() >= 7 && std::memcmp(start.data(), "NRRD000", 7) == 0; }

Image parse_nrrd(Shared bytes, const std::string& name, const std::string& path) {
  refuse_wrapped(is_gzip({bytes->data(), bytes->size()}), name);
  const Fields f = read_fields({bytes->data(), bytes->size()}, name);
  Warnings warnings;
  const Axes axes = axes_of(f, type_of(f));
  Image image = describe(f, axes, warnings);
  std::string voxel_name = name;
  std::size_t start = f.end;
  if (f.find("data file")) {
    voxel_name = data_path(f, path);
    bytes = std::make_shared<Buffer>(load(voxel_name));
    start = 0;
  } else if (!f.blank_line) {
    fail(ErrorCode::bad_file, "{}: NRRD header without a blank line behind it, and without a data file", name);
  }
  const std::span<const std::byte> all(bytes->data(), bytes->size());
  auto skip_of = [&](const char* key) { return f.find(key) ? f.whole(key, f.need(key)) : 0; };
  const std::int64_t lines = skip_of("line skip");
  if (lines < 0) f.refuse("line skip", "0 or more");
  for (std::int64_t n = 0; n < lines; ++n) {
    const auto end = std::find(all.begin() + static_cast<std::ptrdiff_t>(start), all.end(), std::byte{'\n'});
    if (end == all.end()) f.refuse("line skip", "no more lines than the file has");
    start = static_cast<std::size_t>(end - all.begin()) + 1;
  }
  const std::int64_t skip = skip_of("byte skip");
  if (skip < -1 || skip > (std::int64_t{1} << 60)) f.refuse("byte skip", "-1 or more");
  const bool packed = encoding_of(f) == Encoding::gzip;
  if (packed && skip < 0) f.refuse("byte skip", "0 or more in gzip data");
  if (packed) {
    bytes = std::make_shared<Buffer>(gunzip(all.subspan(start), static_cast<std::uint64_t>(skip) + image.bytes(), voxel_name, warnings));
    start = static_cast<std::size_t>(skip);
  } else {
    const std::uint64_t needed = image.bytes() + (skip > 0 ? static_cast<std::uint64_t>(skip) : 0);
    if (needed > all.size() - start)
      fail(ErrorCode::bad_file, "{}: truncated: the header asks for {} bytes of voxels, the file has {}", voxel_name, needed,
           all.size() - start);
    start = skip < 0 ? all.size() - image.bytes() : start + static_cast<std::size_t>(skip);
  }
  take_voxels(image, std::move(bytes), start, big_endian(f, image.type));
  if (!axes.in_order()) permute(image, axes);
  image.warnings = std::move(warnings);
  return image;
}

Image read_nrrd_header(const std::string& path) {
  const Start start = load_start(path, kMostHeaderBytes);
  refuse_wrapped(start.packed, path);
  const Fields f = read_fields(start.bytes, path);
  Warnings warnings;
  Image image = describe(f, axes_of(f, type_of(f)), warnings);
  image.warnings = std::move(warnings);
  return image;
}

}  // namespace files
}  // namespace vg
