// Label tables: id -> name and colour, in the forms that viewers read; and which ids are the two sides of one structure.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "nifti/warning.h"

namespace vg {

using Colour = std::array<std::uint8_t, 3>;  // red, green, blue

struct LutEntry {
  std::string name;
  Colour colour{};
  std::uint8_t transparency = 0;  // FreeSurfer's A: 0 is opaque
};

struct Lut {
  std::map<std::int32_t, LutEntry> entries;
  Warnings warnings;

  bool contains(std::int32_t id) const { return entries.count(id) != 0; }
  std::string name(std::int32_t id) const;  // "label-137" for an id that is not in the table
  Colour colour(std::int32_t id) const;     // a stable, well-spread colour made from the id if it is not in the table; black for 0
  // The id of a name, -1 if none has it.
  std::int32_t find(std::string_view name) const;
  // Ids (left, right) whose names differ in the side alone: Left-X / Right-X, ctx-lh-X / ctx-rh-X, lh-X / rh-X, X_L / X_R, ... Ordered by
  // left id.
  std::vector<std::pair<std::int32_t, std::int32_t>> pairs() const;
};

// The name on the other side ("Left-Putamen" -> "Right-Putamen"); "" where the name has no side.
std::string mirrored_name(std::string_view name);

// FreeSurferColorLUT.txt; ITK-SNAP's label descriptions; BIDS *_dseg.tsv; niivue's label colormap (JSON); 3D Slicer's colour table.
enum class LutForm { freesurfer, itk_snap, bids, niivue, slicer };
LutForm lut_form(const std::string& path);  // by ending: .label, .tsv, .json, .ctbl; all others are FreeSurfer's

// Any of the forms, told by content. Comments, blank lines, any order, any spacing, trailing backslashes. Of a repeated id the last line
// counts (warning duplicate_id). Lines that fit nothing are skipped with the warning bad_line, unless no line has an id: then bad_file.
Lut parse_lut(std::string_view text, const std::string& name);
Lut read_lut(const std::string& path);
std::string to_text(const Lut& lut, LutForm form = LutForm::freesurfer);
void write_lut(const std::string& path, const Lut& lut);  // in the form of lut_form(path)

// The common FreeSurfer ids (aseg, wmparc's corpus callosum) with their names and colours.
Lut builtin_freesurfer();

}  // namespace vg
