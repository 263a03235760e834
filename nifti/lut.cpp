// Colour tables: the common FreeSurfer ids, side pairs by name, colours for unknown ids. Their text forms are in lut_text.cpp.
#include "nifti/lut.h"

#include <algorithm>
#include <cmath>

#include "tensor/error.h"

namespace vg {
namespace {

Colour generated(std::int32_t id) {
  if (id == 0) return {0, 0, 0};
  // Golden-ratio steps around the hue circle keep neighbours apart; saturation and value vary slowly.
  const double turn = std::fmod(static_cast<std::uint32_t>(id) * 0.61803398874989484820, 1.0) * 6.0;
  const double saturation = 0.55 + 0.15 * (static_cast<std::uint32_t>(id) / 7 % 4),
               value = 0.70 + 0.10 * (static_cast<std::uint32_t>(id) / 3 % 4);
  const double low = value * (1 - saturation), part = turn - std::floor(turn);
  const double up = value * (1 - saturation * (1 - part)), down = value * (1 - saturation * part);
  const double table[6][3] = {{value, up, low},   {down, value, low}, {low, value, up},
                              {low, down, value}, {up, low, value},   {value, low, down}};
  const double* c = table[static_cast<int>(turn) % 6];
  auto byte = [](double v) { return static_cast<std::uint8_t>(std::lround(255 * std::clamp(v, 0.0, 1.0))); };
  return {byte(c[0]), byte(c[1]), byte(c[2])};
}

struct Row {
  std::int32_t id;
  const char* name;
  Colour colour;
};
constexpr Row kFreeSurfer[] = {
    {0, "Unknown", {0, 0, 0}},
    {2, "Left-Cerebral-White-Matter", {245, 245, 245}},
    {3, "Left-Cerebral-Cortex", {205, 62, 78}},
    {4, "Left-Lateral-Ventricle", {120, 18, 134}},
    {5, "Left-Inf-Lat-Vent", {196, 58, 250}},
    {7, "Left-Cerebellum-White-Matter", {220, 248, 164}},
    {8, "Left-Cerebellum-Cortex", {230, 148, 34}},
    {10, "Left-Thalamus", {0, 118, 14}},
    {11, "Left-Caudate", {122, 186, 220}},
    {12, "Left-Putamen", {236, 13, 176}},
    {13, "Left-Pallidum", {12, 48, 255}},
    {14, "3rd-Ventricle", {204, 182, 142}},
    {15, "4th-Ventricle", {42, 204, 164}},
    {16, "Brain-Stem", {119, 159, 176}},
    {17, "Left-Hippocampus", {220, 216, 20}},
    {18, "Left-Amygdala", {103, 255, 255}},
    {24, "CSF", {60, 60, 60}},
    {25, "Left-Lesion", {255, 165, 0}},
    {26, "Left-Accumbens-area", {255, 165, 0}},
    {28, "Left-VentralDC", {165, 42, 42}},
    {30, "Left-vessel", {160, 32, 240}},
    {31, "Left-choroid-plexus", {0, 200, 200}},
    {41, "Right-Cerebral-White-Matter", {245, 245, 245}},
    {42, "Right-Cerebral-Cortex", {205, 62, 78}},
    {43, "Right-Lateral-Ventricle", {120, 18, 134}},
    {44, "Right-Inf-Lat-Vent", {196, 58, 250}},
    {46, "Right-Cerebellum-White-Matter", {220, 248, 164}},
    {47, "Right-Cerebellum-Cortex", {230, 148, 34}},
    {49, "Right-Thalamus", {0, 118, 14}},
    {50, "Right-Caudate", {122, 186, 220}},
    {51, "Right-Putamen", {236, 13, 176}},
    {52, "Right-Pallidum", {13, 48, 255}},
    {53, "Right-Hippocampus", {220, 216, 20}},
    {54, "Right-Amygdala", {103, 255, 255}},
    {57, "Right-Lesion", {255, 165, 0}},
    {58, "Right-Accumbens-area", {255, 165, 0}},
    {60, "Right-VentralDC", {165, 42, 42}},
    {62, "Right-vessel", {160, 32, 240}},
    {63, "Right-choroid-plexus", {0, 200, 221}},
    {72, "5th-Ventricle", {120, 190, 150}},
    {77, "WM-hypointensities", {200, 70, 255}},
    {78, "Left-WM-hypointensities", {255, 148, 10}},
    {79, "Right-WM-hypointensities", {255, 148, 10}},
    {80, "non-WM-hypointensities", {164, 108, 226}},
    {81, "Left-non-WM-hypointensities", {164, 108, 226}},
    {82, "Right-non-WM-hypointensities", {164, 108, 226}},
    {85, "Optic-Chiasm", {234, 169, 30}},
    {192, "Corpus_Callosum", {250, 255, 50}},
    {251, "CC_Posterior", {0, 0, 64}},
    {252, "CC_Mid_Posterior", {0, 0, 112}},
    {253, "CC_Central", {0, 0, 160}},
    {254, "CC_Mid_Anterior", {0, 0, 208}},
    {255, "CC_Anterior", {0, 0, 255}},
};

}  // namespace

std::string Lut::name(std::int32_t id) const {
  const auto found = entries.find(id);
  return found == entries.end() ? fmt::format("label-{}", id) : found->second.name;
}

Colour Lut::colour(std::int32_t id) const {
  const auto found = entries.find(id);
  return found == entries.end() ? generated(id) : found->second.colour;
}

std::int32_t Lut::find(std::string_view wanted) const {
  for (const auto& [id, entry] : entries)
    if (entry.name == wanted) return id;
  return -1;
}

std::string mirrored_name(std::string_view name) {
  constexpr std::pair<std::string_view, std::string_view> kSides[] = {
      {"Left", "Right"}, {"left", "right"}, {"LEFT", "RIGHT"}, {"lh", "rh"}, {"LH", "RH"}};
  auto part_end = [&](std::size_t at) { return std::min(name.find_first_of("-_. ", at), name.size()); };
  for (std::size_t at = 0; at < name.size(); at = part_end(at) + 1) {
    const std::size_t end = part_end(at);
    const std::string_view part = name.substr(at, end - at);
    auto with = [&](std::string_view other) {
      return std::string(name.substr(0, at)) + std::string(other) + std::string(name.substr(end));
    };
    for (const auto& [left, right] : kSides) {
      if (part == left) return with(right);
      if (part == right) return with(left);
    }
    if (end == name.size() && at > 0) {  // a single letter means a side at the end alone: "Hippocampus_L"
      if (part == "L") return with("R");
      if (part == "R") return with("L");
    }
  }
  return "";
}

std::vector<std::pair<std::int32_t, std::int32_t>> Lut::pairs() const {
  std::map<std::string_view, std::int32_t> by_name;
  for (const auto& [id, entry] : entries) by_name.try_emplace(entry.name, id);
  std::vector<std::pair<std::int32_t, std::int32_t>> out;
  for (const auto& [id, entry] : entries) {
    const std::string other = mirrored_name(entry.name);
    // Of the two names the right one sorts after the left one ("Left" < "Right", "lh" < "rh", "L" < "R"): each pair is met once.
    if (other.empty() || other < entry.name || by_name.at(entry.name) != id) continue;
    if (const auto found = by_name.find(other); found != by_name.end()) out.emplace_back(id, found->second);
  }
  return out;
}

Lut builtin_freesurfer() {
  Lut lut;
  for (const Row& row : kFreeSurfer) lut.entries[row.id] = {row.name, row.colour, 0};
  return lut;
}

}  // namespace vg
