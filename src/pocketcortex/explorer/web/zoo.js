// The zoo: networks ranked, and their scores layer by layer.

import { clear, h } from "./dom.js";

export async function zooPage(main, backend) {
  document.title = "Zoo · pocketcortex";
  const { zoo } = await backend.zoo();
  clear(main, h("h1", {}, "Zoo"), zoo ? null : h("p", { class: "quiet" },
    "There are no scores of networks here. Open a folder that pocketcortex zoo has scored."));
}
