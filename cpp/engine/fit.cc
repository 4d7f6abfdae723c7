#include "engine/fit.h"

namespace cupola {

Fit Judge(const Demand& demand, const Supply& supply) {
  if (demand.pages_at_end > supply.total) return Fit::kNever;
  if (demand.pages_now > supply.available || demand.peak > supply.total) return Fit::kLater;
  return Fit::kNow;
}

}  // namespace cupola
