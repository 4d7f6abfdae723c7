// Images that go with the next message: chosen, pasted or dropped, and made small enough to send.

const LONGEST_SIDE = 1536; // pixels; what models see is smaller still

/** The images among `files` as data URLs. A file that no browser can draw is left out. */
export async function readImages(files) {
  const images = [...files].filter((file) => file.type.startsWith("image/"));
  const found = await Promise.all(images.map((file) => shrink(file).catch(() => null)));
  return found.filter((url) => url !== null);
}

async function shrink(file) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas.toDataURL(file.type === "image/png" ? "image/png" : "image/jpeg", 0.9);
}
