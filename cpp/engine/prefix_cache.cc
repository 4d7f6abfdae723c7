#include "engine/prefix_cache.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <string>

namespace cupola {

namespace {

int32_t CommonLength(const int32_t* a, const int32_t* b, int32_t most) {
  return static_cast<int32_t>(std::mismatch(a, a + most, b).first - a);
}

bool Less(const int32_t* a, int32_t length_a, const int32_t* b, int32_t length_b) {
  const int32_t common = CommonLength(a, b, std::min(length_a, length_b));
  if (common == length_a) return length_a < length_b;  // a beginning stands before what it begins
  return common < length_b && a[common] < b[common];
}

}  // namespace

PrefixCache::PrefixCache(int32_t page_size, PagePool* pool)
    : page_size_(page_size),
      pool_(pool),
      tokens_(int64_t{pool->num_total()} * page_size, 0),
      node_of_(pool->num_total(), nullptr),
      depth_of_(pool->num_total(), 0) {}

PrefixCache::~PrefixCache() { Clear(); }

// ---- Looking up ---------------------------------------------------------------------------------

void PrefixCache::Find(uint64_t seed, int32_t after, const int32_t* tokens, int32_t num_tokens,
                       Found* found) {
  found->pages.clear();
  found->partial = kNoPage;
  found->partial_tokens = 0;
  Place place = PlaceAfter(seed, after);
  if (place.node == nullptr) return;
  Run rest{tokens, num_tokens};
  for (;;) {
    int32_t page;
    if (place.index < static_cast<int32_t>(place.node->pages.size())) {
      page = place.node->pages[place.index];
      if (!Equal(page, rest)) break;
    } else {
      const Child* child = ChildOf(*place.node, rest);
      if (child == nullptr) break;
      page = child->first_page;
      place = {child->node.get(), 0};
    }
    found->pages.push_back(page);
    ++place.index;
    rest = {rest.tokens + page_size_, rest.length - page_size_};
  }
  FindPartial(place, rest, found);
  Touch(place.node);
}

// The page that agrees longest with the rest stands where the rest would stand, or just before.
void PrefixCache::FindPartial(const Place& place, const Run& rest, Found* found) const {
  const auto consider = [&](int32_t page) {
    const int32_t most = std::min(rest.length, page_size_ - 1);
    const int32_t common = CommonLength(TokensOf(page), rest.tokens, most);
    if (common > found->partial_tokens) {
      found->partial = page;
      found->partial_tokens = common;
    }
  };
  const Node& node = *place.node;
  if (place.index < static_cast<int32_t>(node.pages.size())) {
    consider(node.pages[place.index]);
    return;
  }
  const auto next = Search(node, rest);
  if (next != node.children.end()) consider(next->first_page);
  if (next != node.children.begin()) consider(std::prev(next)->first_page);
}

bool PrefixCache::Equal(int32_t page, const Run& run) const {
  return run.length >= page_size_ &&
         std::equal(run.tokens, run.tokens + page_size_, TokensOf(page));
}

PrefixCache::Children::const_iterator PrefixCache::Search(const Node& node, const Run& run) const {
  const auto before = [this](const Child& child, const Run& sought) {
    if (sought.length == 0) return false;
    if (child.first_token != *sought.tokens) return child.first_token < *sought.tokens;
    const int32_t length = std::min(sought.length, page_size_);
    return Less(TokensOf(child.first_page), page_size_, sought.tokens, length);
  };
  return std::lower_bound(node.children.begin(), node.children.end(), run, before);
}

const PrefixCache::Child* PrefixCache::ChildOf(const Node& node, const Run& run) const {
  const auto child = Search(node, run);
  return child != node.children.end() && Equal(child->first_page, run) ? &*child : nullptr;
}

PrefixCache::Place PrefixCache::PlaceAfter(uint64_t seed, int32_t page) const {
  if (page == kNoPage) {
    const auto root = roots_.find(seed);
    return {root == roots_.end() ? nullptr : root->second.get(), 0};
  }
  Node* node = node_of_.at(page);
  if (node == nullptr) {
    throw std::logic_error("prefix cache: page " + std::to_string(page) + " is not in it");
  }
  return {node, depth_of_[page] - node->depth + 1};
}

// ---- Growing ------------------------------------------------------------------------------------

int32_t PrefixCache::Insert(uint64_t seed, int32_t after, const int32_t* tokens, int32_t page) {
  Place place = after == kNoPage ? Place{RootFor(seed), 0} : PlaceAfter(seed, after);
  Node* node = place.node;
  if (place.index < static_cast<int32_t>(node->pages.size())) {
    const int32_t there = node->pages[place.index];
    if (Equal(there, {tokens, page_size_})) return there;
    node = Split(node, place.index);
  }
  const Child* child = ChildOf(*node, {tokens, page_size_});
  if (child != nullptr) return child->first_page;
  if (node->parent != nullptr && node->children.empty()) {
    Append(node, tokens, page);
  } else {
    AddChild(node, tokens, page);
  }
  pool_->Cache(page);
  return page;
}

PrefixCache::Node* PrefixCache::RootFor(uint64_t seed) {
  std::unique_ptr<Node>& root = roots_[seed];
  if (root == nullptr) {
    root = std::make_unique<Node>();
    root->seed = seed;
  }
  return root.get();
}

PrefixCache::Node* PrefixCache::AddChild(Node* parent, const int32_t* tokens, int32_t page) {
  auto owned = std::make_unique<Node>();
  Node* child = owned.get();
  child->depth = parent->depth + static_cast<int32_t>(parent->pages.size());
  Append(child, tokens, page);
  leaves_.erase({parent->last_use, parent});
  Adopt(parent, std::move(owned));
  child->last_use = ++clock_;
  leaves_.insert({child->last_use, child});
  ++num_nodes_;
  return child;
}

void PrefixCache::Adopt(Node* parent, std::unique_ptr<Node> child) {
  child->parent = parent;
  const int32_t page = child->pages.front();
  const auto place = Search(*parent, {TokensOf(page), page_size_});
  parent->children.insert(place, Child{*TokensOf(page), page, std::move(child)});
}

void PrefixCache::Append(Node* node, const int32_t* tokens, int32_t page) {
  depth_of_[page] = node->depth + static_cast<int32_t>(node->pages.size());
  node_of_[page] = node;
  node->pages.push_back(page);
  std::copy(tokens, tokens + page_size_, tokens_.begin() + int64_t{page} * page_size_);
}

// Cuts a node's first `index` pages off into a node of their own, which takes its place; returns
// that one. `node` itself keeps the rest, so that its children and its pages stay where they are.
PrefixCache::Node* PrefixCache::Split(Node* node, int32_t index) {
  auto owned = std::make_unique<Node>();
  Node* upper = owned.get();
  Children* siblings = &node->parent->children;
  const auto place = Search(*node->parent, {TokensOf(node->pages.front()), page_size_});
  std::unique_ptr<Node>& slot = (*siblings)[place - siblings->begin()].node;

  const auto cut = node->pages.begin() + index;
  upper->parent = node->parent;
  upper->depth = node->depth;
  upper->last_use = node->last_use;
  upper->pages.assign(node->pages.begin(), cut);
  for (int32_t page : upper->pages) node_of_[page] = upper;
  node->pages.erase(node->pages.begin(), cut);
  node->depth += index;

  slot.swap(owned);  // both begin alike
  Adopt(upper, std::move(owned));
  ++num_nodes_;
  return upper;
}

// ---- Forgetting ---------------------------------------------------------------------------------

void PrefixCache::Touch(int32_t page) {
  if (node_of_.at(page) != nullptr) Touch(node_of_[page]);
}

void PrefixCache::Touch(Node* node) {
  const auto leaf = leaves_.find({node->last_use, node});
  node->last_use = ++clock_;
  if (leaf == leaves_.end()) return;
  auto entry = leaves_.extract(leaf);
  entry.value().first = node->last_use;
  leaves_.insert(leaves_.end(), std::move(entry));
}

void PrefixCache::Evict(int32_t count) {
  if (count > pool_->num_evictable()) {
    throw std::logic_error("prefix cache: " + std::to_string(count) + " pages to be evicted of " +
                           std::to_string(pool_->num_evictable()));
  }
  size_t num_in_use = 0;
  while (count > 0) {
    Node* leaf = leaves_.empty() ? nullptr : leaves_.begin()->second;
    if (leaf == nullptr || num_in_use > leaves_.size()) {
      throw std::logic_error("prefix cache: a page that nobody holds is out of reach");
    }
    if (pool_->holders(leaf->pages.back()) > 0) {
      Touch(leaf);  // whose pages are held is in use now
      ++num_in_use;
      continue;
    }
    const int32_t page = leaf->pages.back();
    leaf->pages.size() == 1 ? RemoveLeaf(leaf) : leaf->pages.pop_back();
    node_of_[page] = nullptr;
    pool_->Uncache(page);
    ++num_evicted_;
    --count;
  }
}

void PrefixCache::RemoveLeaf(Node* leaf) {
  Node* parent = leaf->parent;
  leaves_.erase({leaf->last_use, leaf});
  const uint64_t last_use = leaf->last_use;
  parent->children.erase(Search(*parent, {TokensOf(leaf->pages.front()), page_size_}));
  --num_nodes_;
  if (!parent->children.empty()) return;
  if (parent->parent == nullptr) {
    roots_.erase(parent->seed);
    return;
  }
  // It was in use whenever its child was.
  parent->last_use = std::max(parent->last_use, last_use);
  leaves_.insert({parent->last_use, parent});
}

// Node by node and not by recursion: a conversation can make a deep tree.
void PrefixCache::Clear() {
  std::vector<std::unique_ptr<Node>> doomed;
  for (auto& [seed, root] : roots_) doomed.push_back(std::move(root));
  while (!doomed.empty()) {
    const std::unique_ptr<Node> node = std::move(doomed.back());
    doomed.pop_back();
    for (Child& child : node->children) doomed.push_back(std::move(child.node));
  }
  roots_.clear();
  leaves_.clear();
  node_of_.assign(node_of_.size(), nullptr);
  num_nodes_ = 0;
}

// ---- Checking -----------------------------------------------------------------------------------

std::vector<int32_t> PrefixCache::CheckedPages() const {
  std::vector<int32_t> pages;
  std::vector<const Node*> open;
  size_t num_leaves = 0;
  for (const auto& [seed, root] : roots_) open.push_back(root.get());
  while (!open.empty()) {
    const Node& node = *open.back();
    open.pop_back();
    if (node.parent != nullptr) CheckNode(node, &pages, &num_leaves);
    for (const Child& child : node.children) {
      if (child.node->parent != &node || child.node->pages.front() != child.first_page ||
          *TokensOf(child.first_page) != child.first_token) {
        throw std::logic_error("prefix cache: a child is not where it should be");
      }
      open.push_back(child.node.get());
    }
  }
  if (num_leaves != leaves_.size()) {
    throw std::logic_error("prefix cache: " + std::to_string(num_leaves) + " leaves, but " +
                           std::to_string(leaves_.size()) + " in order of use");
  }
  return pages;
}

void PrefixCache::CheckNode(const Node& node, std::vector<int32_t>* pages,
                            size_t* num_leaves) const {
  if (node.children.empty()) {
    ++*num_leaves;
    if (leaves_.count({node.last_use, const_cast<Node*>(&node)}) == 0) {
      throw std::logic_error("prefix cache: a leaf is not in order of use");
    }
  }
  const Node& parent = *node.parent;
  bool above_held = parent.parent == nullptr || pool_->holders(parent.pages.back()) > 0;
  int32_t depth = parent.depth + static_cast<int32_t>(parent.pages.size());
  for (int32_t page : node.pages) {
    const bool held = pool_->holders(page) > 0;
    if (node_of_[page] != &node || depth_of_[page] != depth++ || (held && !above_held)) {
      throw std::logic_error("prefix cache: page " + std::to_string(page) +
                             " is not where it should be, or held without those before it");
    }
    above_held = held;
    pages->push_back(page);
  }
}

}  // namespace cupola
