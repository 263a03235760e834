// Series, slices and geometry. Positions win: the order of the slices and their distance come from ImagePositionPatient projected on the normal of
// the image plane, never from instance numbers, SliceThickness or SpacingBetweenSlices (where a volume has more than one slice).
#include "nifti/dicom_series.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "tensor/error.h"

namespace vg::dicom {
namespace {

constexpr std::int64_t kMostFrames = 1'000'000, kMostPixels = std::int64_t{1} << 40;
constexpr double kSamePlace = 0.01;   // mm: slices closer than this lie in one place
constexpr double kJitter = 0.01;      // of the distance between slices
constexpr double kSameDirection = 1e-3, kSameSpacing = 1e-3;
constexpr double kTilt = 0.02;        // sine of the angle between the stack and its normal

std::uint64_t key_of(int frame, std::uint16_t group, std::uint16_t element) {
  return static_cast<std::uint64_t>(frame + 2) << 32 | static_cast<std::uint64_t>(group) << 16 | element;
}

std::string trimmed(const std::string& s) {
  const auto blank = [](char c) { return static_cast<unsigned char>(c) <= ' '; };
  std::size_t a = 0, b = s.size();
  while (a < b && blank(s[a])) ++a;
  while (b > a && blank(s[b - 1])) --b;
  return s.substr(a, b - a);
}

// A value for messages: short, printable.
std::string shown(const std::string& s) {
  std::string out = trimmed(s).substr(0, 60);
  for (char& c : out)
    if (c < ' ' || c > '~') c = '?';
  return out;
}

double dot(const Vec3& a, const Vec3& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
Vec3 minus(const Vec3& a, const Vec3& b) { return {a[0] - b[0], a[1] - b[1], a[2] - b[2]}; }
Vec3 cross(const Vec3& a, const Vec3& b) { return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]}; }
double length(const Vec3& a) { return std::sqrt(dot(a, a)); }

}  // namespace

void Header::set(int frame, std::uint16_t group, std::uint16_t element, std::string text) {
  if (frame < kShared || frame >= kMostFrames) return;
  elements_.insert_or_assign(key_of(frame, group, element), std::move(text));
}

const std::string* Header::find(const Tag& tag, int frame) const {
  for (const int f : {frame, frame == kTopLevel ? kTopLevel : kShared, kTopLevel})
    if (const auto at = elements_.find(key_of(f, tag.group, tag.element)); at != elements_.end()) return &at->second;
  return nullptr;
}

std::int64_t Header::described_frames() const {
  std::int64_t count = 0;
  for (auto at = elements_.lower_bound(key_of(0, 0, 0)); at != elements_.end(); at = elements_.lower_bound(((at->first >> 32) + 1) << 32)) ++count;
  return count;
}

std::string Header::text(const Tag& tag, int frame) const {
  const std::string* value = find(tag, frame);
  return value ? trimmed(*value) : "";
}

void Header::refuse(ErrorCode code, const Tag& tag, const std::string& wanted, int frame) const {
  const std::string* value = find(tag, frame);
  const std::string at = frame >= 0 ? fmt::format(" of frame {}", frame + 1) : "";
  const std::string said = value ? fmt::format("= \"{}\"", shown(*value)) : std::string("is missing");
  fail(code, "{}: ({:04X},{:04X}) {}{} {} (wanted {})", name, tag.group, tag.element, tag.name, at, said, wanted);
}

std::vector<double> Header::numbers(const Tag& tag, int frame) const {
  const std::string all = text(tag, frame);
  std::vector<double> out;
  for (std::size_t at = 0; !all.empty() && at <= all.size();) {
    const std::size_t end = std::min(all.find('\\', at), all.size());
    const std::string one = trimmed(all.substr(at, end - at));
    const char* first = one.data() + (one.starts_with('+') ? 1 : 0);
    double v = 0;
    const auto [stop, error] = std::from_chars(first, one.data() + one.size(), v);
    if (error != std::errc() || stop != one.data() + one.size() || !std::isfinite(v)) refuse(ErrorCode::bad_file, tag, "finite numbers", frame);
    out.push_back(v);
    at = end + 1;
  }
  return out;
}

std::int64_t Header::whole(const Tag& tag, std::int64_t low, std::int64_t high, std::optional<std::int64_t> fallback) const {
  const std::vector<double> v = numbers(tag);
  if (v.empty() && fallback) return *fallback;
  if (v.size() != 1 || v[0] != std::nearbyint(v[0]) || v[0] < static_cast<double>(low) || v[0] > static_cast<double>(high))
    refuse(ErrorCode::bad_file, tag, fmt::format("a whole number of {} .. {}", low, high));
  return static_cast<std::int64_t>(v[0]);
}

void add_record(Header& header, const std::string& lines) {
  for (std::size_t at = 0; at < lines.size();) {
    const std::size_t end = std::min(lines.find('\n', at), lines.size());
    const char *p = lines.data() + at, *stop = lines.data() + end;
    at = end + 1;
    int frame = 0;
    std::uint16_t group = 0, element = 0;
    const auto a = std::from_chars(p, stop, frame);
    if (a.ec != std::errc() || a.ptr == stop) continue;
    const auto b = std::from_chars(a.ptr + 1, stop, group, 16);
    if (b.ec != std::errc() || b.ptr == stop) continue;
    const auto c = std::from_chars(b.ptr + 1, stop, element, 16);
    if (c.ec != std::errc()) continue;
    header.set(frame, group, element, c.ptr < stop ? std::string(c.ptr + 1, stop) : "");
  }
}

std::vector<Series> group(const std::vector<Header>& headers) {
  std::vector<Series> out;
  std::map<std::string, std::size_t> by_uid;
  for (std::size_t n = 0; n < headers.size(); ++n) {
    const Header& h = headers[n];
    if (!h.is_image()) continue;
    std::string uid = h.text(kSeriesUid);
    if (uid.empty()) uid = "number " + h.text(kSeriesNumber);
    const auto [at, fresh] = by_uid.try_emplace(uid, out.size());
    if (fresh) {
      Series s;
      s.uid = uid;
      const std::string number = h.text(kSeriesNumber);
      std::from_chars(number.data(), number.data() + number.size(), s.number);
      s.modality = shown(h.text(kModality)).substr(0, 16);
      out.push_back(std::move(s));
    }
    out[at->second].files.push_back(n);
  }
  std::stable_sort(out.begin(), out.end(), [](const Series& a, const Series& b) { return a.number < b.number; });
  return out;
}

std::int64_t Stack::frames_of(std::size_t file, const std::vector<Header>& headers) const {
  return headers[file].whole(kFrames, 1, kMostFrames, 1);
}

namespace {

struct Plane {  // a slice on its way to its place
  Slice slice;
  Vec3 row{}, column{}, position{};  // LPS
  double row_step = 0, column_step = 0, between = 0, along = 0;
  std::vector<double> order;  // within its place: times, echoes, acquisitions
};

// What must be one for all files: size and form of a pixel.
void take_format(const Header& h, Stack& s, bool first) {
  if (const std::string v = h.text(kPhotometric); v != "MONOCHROME2" && v != "MONOCHROME1")
    h.refuse(ErrorCode::unsupported, kPhotometric, "MONOCHROME2 or MONOCHROME1: one grey value a pixel");
  if (h.whole(kSamples, 1, 65535, 1) != 1) h.refuse(ErrorCode::unsupported, kSamples, "1");
  if (h.find(kModalityLut)) h.refuse(ErrorCode::unsupported, kModalityLut, "none: values by RescaleSlope and RescaleIntercept alone");
  if (h.text(kImageType).find("MOSAIC") != std::string::npos)
    h.refuse(ErrorCode::unsupported, kImageType, "no mosaic: one slice an image, not tiles of a picture");
  if (!h.find(kPosition) && !h.find(kPosition, 0)) h.refuse(ErrorCode::bad_file, kPosition, "x\\y\\z in mm");
  Stack t;
  t.size = {h.whole(kColumns, 1, 65535), h.whole(kRows, 1, 65535), 1};
  t.allocated = static_cast<int>(h.whole(kAllocated, 1, 64));
  if (t.allocated != 8 && t.allocated != 16 && t.allocated != 32 && t.allocated != 64) h.refuse(ErrorCode::unsupported, kAllocated, "8, 16 or 32; 32 or 64 for real numbers");
  const bool real = !h.find(kStored);  // FloatPixelData and DoubleFloatPixelData have no BitsStored
  t.stored = static_cast<int>(h.whole(kStored, 1, t.allocated, t.allocated));
  t.high_bit = static_cast<int>(h.whole(kHighBit, t.stored - 1, t.allocated - 1, t.stored - 1));
  t.is_signed = h.whole(kSigned, 0, 1, 0) == 1;
  if (real ? t.allocated < 32 : t.allocated > 32) h.refuse(ErrorCode::unsupported, kAllocated, real ? "32 or 64 for real numbers" : "8, 16 or 32");
  t.type = real                ? (t.allocated == 32 ? Number::f32 : Number::f64)
           : t.allocated == 8  ? (t.is_signed ? Number::i8 : Number::u8)
           : t.allocated == 16 ? (t.is_signed ? Number::i16 : Number::u16)
                               : (t.is_signed ? Number::i32 : Number::u32);
  if (first) {
    s.size = t.size, s.allocated = t.allocated, s.stored = t.stored, s.high_bit = t.high_bit, s.is_signed = t.is_signed, s.type = t.type;
    s.syntax = h.text(kTransferSyntax);
    return;
  }
  if (t.size[1] != s.size[1]) h.refuse(ErrorCode::bad_file, kRows, fmt::format("{} as in the other files of the series", s.size[1]));
  if (t.size[0] != s.size[0]) h.refuse(ErrorCode::bad_file, kColumns, fmt::format("{} as in the other files of the series", s.size[0]));
  if (t.type != s.type || t.high_bit != s.high_bit || t.stored != s.stored)
    h.refuse(ErrorCode::bad_file, t.type != s.type ? kAllocated : kStored, "the form of pixels of the other files of the series");
}

Vec3 three(const Header& h, const Tag& tag, int frame) {
  const std::vector<double> v = h.numbers(tag, frame);
  if (v.size() != 3 || std::any_of(v.begin(), v.end(), [](double x) { return std::abs(x) > 1e7; })) h.refuse(ErrorCode::bad_file, tag, "x\\y\\z in mm", frame);
  return {v[0], v[1], v[2]};
}

double first_or(const Header& h, const Tag& tag, int frame, double fallback) {
  const std::vector<double> v = h.numbers(tag, frame);
  return v.empty() ? fallback : v[0];
}
double first_order(const Header& h, const Tag& tag, int frame) {  // text that is no number sorts first: it is a hint, not geometry
  try {
    return first_or(h, tag, frame, 0);
  } catch (const Error&) {
    return 0;
  }
}

Plane plane_of(const Header& h, std::size_t file, std::int64_t frame, std::int64_t frames, const std::vector<double>& offsets) {
  const int f = static_cast<int>(frame);
  Plane p;
  p.slice.file = file, p.slice.frame = frame;
  const std::vector<double> o = h.numbers(kOrientation, f);
  if (o.size() != 6) h.refuse(ErrorCode::bad_file, kOrientation, "six direction cosines", frames > 1 ? f : kTopLevel);
  p.row = {o[0], o[1], o[2]}, p.column = {o[3], o[4], o[5]};
  if (std::abs(length(p.row) - 1) > 1e-2 || std::abs(length(p.column) - 1) > 1e-2 || std::abs(dot(p.row, p.column)) > 1e-2)
    h.refuse(ErrorCode::bad_file, kOrientation, "two perpendicular directions of length 1", frames > 1 ? f : kTopLevel);
  const std::vector<double> spacing = h.numbers(kPixelSpacing, f);
  if (spacing.size() != 2 || !(spacing[0] > 1e-6 && spacing[1] > 1e-6 && spacing[0] < 1e6 && spacing[1] < 1e6))
    h.refuse(ErrorCode::bad_file, kPixelSpacing, "two distances in mm", frames > 1 ? f : kTopLevel);
  p.column_step = spacing[0], p.row_step = spacing[1];  // between rows, that is down a column; between columns
  p.position = three(h, kPosition, f);
  if (!offsets.empty()) {
    const Vec3 normal = cross(p.row, p.column);
    for (int a = 0; a < 3; ++a) p.position[a] += normal[a] * (offsets[static_cast<std::size_t>(frame)] - offsets[0]);
  }
  p.between = first_order(h, kBetweenSlices, f);
  if (!(p.between > 0)) p.between = first_order(h, kThickness, f);
  const std::vector<double> slope = h.numbers(kSlope, f), inter = h.numbers(kIntercept, f);
  p.slice.slope = slope.empty() ? first_or(h, kDoseScaling, f, 1) : slope[0];
  p.slice.inter = inter.empty() ? 0 : inter[0];
  if (p.slice.slope == 0) h.refuse(ErrorCode::bad_file, kSlope, "another number than 0", frames > 1 ? f : kTopLevel);
  p.order = {first_order(h, kTemporal, f), first_order(h, kTemporalIndex, f), first_order(h, kEchoNumber, f), first_order(h, kEchoTime, f),
             first_order(h, kAcquisition, f), first_order(h, kInstance, f), static_cast<double>(frame)};
  return p;
}

std::vector<Plane> planes_of(const std::vector<Header>& headers, const Series& series, Stack& s) {
  std::vector<Plane> planes;
  std::map<std::string, std::size_t> instances;
  for (const std::size_t file : series.files) {
    const Header& h = headers[file];
    take_format(h, s, file == series.files[0]);
    if (const std::string uid = h.text(kInstanceUid); !uid.empty()) {
      const auto [at, fresh] = instances.try_emplace(uid, file);
      if (!fresh) h.refuse(ErrorCode::bad_file, kInstanceUid, fmt::format("another one than {}, of which this is a duplicate", headers[at->second].name));
    }
    const std::int64_t frames = h.whole(kFrames, 1, kMostFrames, 1);
    std::vector<double> offsets;
    const bool own = frames == 1 || h.find(kPosition, static_cast<int>(frames - 1)) != h.find(kPosition);
    if (!own) {
      offsets = h.numbers(kFrameOffsets);
      if (offsets.size() != static_cast<std::size_t>(frames))
        h.refuse(ErrorCode::bad_file, kFrames, "1, or a position for every frame (5200,9230)");
    } else if (frames > 1 && h.described_frames() < frames) {
      h.refuse(ErrorCode::bad_file, kFrames, fmt::format("the {} that (5200,9230) describes", h.described_frames()));
    }
    if (static_cast<std::int64_t>(planes.size()) + frames > kMostFrames) h.refuse(ErrorCode::bad_file, kFrames, "a million in all");
    for (std::int64_t f = 0; f < frames; ++f) planes.push_back(plane_of(h, file, f, frames, offsets));
    if (h.text(kPhotometric) == "MONOCHROME1" && !has_warning(s.warnings, "monochrome1"))
      s.warnings.push_back({"monochrome1", "low values mean bright (MONOCHROME1): values are kept as stored, not inverted"});
    if (h.text(kLossy) == "01" && !has_warning(s.warnings, "lossy"))
      s.warnings.push_back({"lossy", "the pixels went through lossy compression"});
  }
  return planes;
}

std::string frame_name(const std::vector<Header>& headers, const Plane& p) {
  const Header& h = headers[p.slice.file];
  return h.whole(kFrames, 1, kMostFrames, 1) > 1 ? fmt::format("{} frame {}", h.name, p.slice.frame + 1) : h.name;
}

}  // namespace

Stack stack(const std::vector<Header>& headers, const Series& series) {
  Stack s;
  std::vector<Plane> planes = planes_of(headers, series, s);
  const Plane& a = planes.front();
  const auto refuse = [&](const Plane& p, const Tag& tag, const std::string& wanted) {
    const Header& h = headers[p.slice.file];
    h.refuse(ErrorCode::bad_file, tag, wanted, h.whole(kFrames, 1, kMostFrames, 1) > 1 ? static_cast<int>(p.slice.frame) : kTopLevel);
  };
  for (const Plane& p : planes) {
    if (length(minus(p.row, a.row)) > kSameDirection || length(minus(p.column, a.column)) > kSameDirection)
      refuse(p, kOrientation, fmt::format("one orientation for the series, that of {}: a scout or several scans in one", frame_name(headers, a)));
    if (std::abs(p.row_step / a.row_step - 1) > kSameSpacing || std::abs(p.column_step / a.column_step - 1) > kSameSpacing)
      refuse(p, kPixelSpacing, fmt::format("one spacing for the series, that of {}", frame_name(headers, a)));
  }
  const Vec3 normal = cross(a.row, a.column);
  for (Plane& p : planes) p.along = dot(p.position, normal);
  std::stable_sort(planes.begin(), planes.end(), [](const Plane& x, const Plane& y) { return x.along < y.along; });

  std::vector<std::size_t> starts;  // of the places
  for (std::size_t n = 0; n < planes.size(); ++n)
    if (n == 0 || planes[n].along - planes[starts.back()].along > kSamePlace) starts.push_back(n);
  const std::size_t places = starts.size();
  starts.push_back(planes.size());
  const auto count = [&](std::size_t k) { return starts[k + 1] - starts[k]; };
  std::vector<std::size_t> counts;
  for (std::size_t k = 0; k < places; ++k) counts.push_back(count(k));
  std::nth_element(counts.begin(), counts.begin() + static_cast<std::ptrdiff_t>(places / 2), counts.end());
  const std::size_t times = counts[places / 2];
  for (std::size_t k = 0; k < places; ++k) {
    std::sort(planes.begin() + static_cast<std::ptrdiff_t>(starts[k]), planes.begin() + static_cast<std::ptrdiff_t>(starts[k + 1]), [](const Plane& x, const Plane& y) {
      return x.order != y.order ? x.order < y.order : x.slice.file < y.slice.file;
    });
    const Plane& last = planes[starts[k + 1] - 1];
    if (count(k) != times)
      refuse(last, kPosition, fmt::format("{} at every place, here {}: a slice is {}", times == 1 ? "one slice" : fmt::format("{} slices", times), count(k),
                                          count(k) > times ? "there twice" : "missing"));
    for (std::size_t n = starts[k] + 1; n < starts[k + 1]; ++n)
      if (planes[n].order == planes[n - 1].order)
        refuse(planes[n], kPosition, fmt::format("another place, time or number than {}: a duplicate", frame_name(headers, planes[n - 1])));
  }

  Vec3 step{};
  const Vec3 origin = planes.front().position;
  if (places > 1) {
    const Vec3 last = planes[starts[places - 1]].position;
    for (int c = 0; c < 3; ++c) step[c] = (last[c] - origin[c]) / static_cast<double>(places - 1);
    const double mean = dot(step, normal);
    std::size_t worst = 1;
    double most = 0;
    for (std::size_t k = 1; k < places; ++k) {
      const double gap = planes[starts[k]].along - planes[starts[k - 1]].along;
      if (std::abs(gap - mean) > most) most = std::abs(gap - mean), worst = k;
    }
    if (most > kJitter * mean + 1e-3) {
      std::vector<double> gaps;
      for (std::size_t k = 1; k < places; ++k) gaps.push_back(planes[starts[k]].along - planes[starts[k - 1]].along);
      const double gap = gaps[worst - 1];
      std::nth_element(gaps.begin(), gaps.begin() + static_cast<std::ptrdiff_t>(gaps.size() / 2), gaps.end());
      refuse(planes[starts[worst]], kPosition,
             fmt::format("slices at even distances; this one lies {:.4g} mm behind {}, others {:.4g} mm: a gap", gap, frame_name(headers, planes[starts[worst - 1]]),
                         gaps[gaps.size() / 2]));
    }
    Vec3 aside = step;
    for (int c = 0; c < 3; ++c) aside[c] -= mean * normal[c];
    if (length(aside) > kTilt * mean)
      refuse(planes[starts[places - 1]], kPosition, fmt::format("slices above each other; these lean by {:.2g} degrees: gantry tilt", std::atan(length(aside) / mean) * 180 / 3.14159265358979));
    for (std::size_t n = 0; n < planes.size(); ++n) {
      const std::size_t k = static_cast<std::size_t>(std::upper_bound(starts.begin(), starts.end(), n) - starts.begin()) - 1;
      Vec3 off = minus(planes[n].position, origin);
      for (int c = 0; c < 3; ++c) off[c] -= step[c] * static_cast<double>(k);
      const double sideways = length(minus(off, {dot(off, normal) * normal[0], dot(off, normal) * normal[1], dot(off, normal) * normal[2]}));
      if (sideways > 0.25 * std::min(a.row_step, a.column_step) + 1e-3)
        refuse(planes[n], kPosition, fmt::format("slices above each other; this one lies {:.3g} mm aside", sideways));
    }
    const double said = planes.front().between;
    if (said > 0 && std::abs(said / mean - 1) > 0.05)
      s.warnings.push_back({"slice_distance", fmt::format("the slices' positions are {:.4g} mm apart, the header says {:.4g}: positions win", mean, said)});
  } else {
    double thick = a.between;
    if (!(thick > 1e-6 && thick < 1e6)) {
      thick = 1;
      s.warnings.push_back({"no_thickness", "a single slice without SliceThickness or SpacingBetweenSlices: 1 mm is taken"});
    }
    for (int c = 0; c < 3; ++c) step[c] = thick * normal[c];
  }

  s.size[2] = static_cast<std::int64_t>(places), s.times = static_cast<std::int64_t>(times);
  if (static_cast<double>(s.size[0]) * static_cast<double>(s.size[1]) * static_cast<double>(planes.size()) > static_cast<double>(kMostPixels))
    headers[series.files[0]].refuse(ErrorCode::bad_file, kFrames, "fewer pixels in all");
  for (int r = 0; r < 3; ++r) {  // DICOM counts towards the left and posterior, NIfTI towards the right and anterior
    const double sign = r < 2 ? -1 : 1;
    s.place.affine.m[r][0] = sign * a.row[r] * a.row_step + 0.0;  // + 0: never -0
    s.place.affine.m[r][1] = sign * a.column[r] * a.column_step + 0.0;
    s.place.affine.m[r][2] = sign * step[r] + 0.0;
    s.place.affine.m[r][3] = sign * origin[r] + 0.0;
  }
  s.place.source = TransformSource::directions, s.place.code = 1;
  if (is_singular(s.place.affine)) refuse(planes.front(), kOrientation, "directions that span a volume");
  std::set<std::size_t> seen;
  for (std::size_t t = 0; t < times; ++t)
    for (std::size_t k = 0; k < places; ++k) {
      const Slice& slice = planes[starts[k] + t].slice;
      s.slices.push_back(slice);
      s.one_scaling &= slice.slope == s.slices[0].slope && slice.inter == s.slices[0].inter;
      if (seen.insert(slice.file).second) s.files.push_back(slice.file);
    }
  return s;
}

namespace {

template <class T>
void clean(std::byte* bytes, std::int64_t count, int up, int down) {
  T* v = reinterpret_cast<T*>(bytes);
  using U = std::make_unsigned_t<T>;
  for (std::int64_t n = 0; n < count; ++n) v[n] = static_cast<T>(static_cast<T>(static_cast<U>(static_cast<U>(v[n]) << up)) >> down);
}

}  // namespace

void clean_bits(std::byte* pixels, std::int64_t count, const Stack& s) {
  const int up = s.allocated - 1 - s.high_bit, down = s.allocated - s.stored;
  if (down == 0 || s.type == Number::f32 || s.type == Number::f64) return;
  with_number(s.type, [&]<class T>() {
    if constexpr (std::is_integral_v<T>) clean<T>(pixels, count, up, down);
  });
}

}  // namespace vg::dicom
