export default {
  render({ model, el }) {
    const image = document.createElement("img");
    image.style.maxWidth = "100%";

    const show = () => {
      URL.revokeObjectURL(image.src);
      image.src = URL.createObjectURL(new Blob([model.get("value")], { type: "image/png" }));
    };
    const hint = () => {
      image.title = model.get("hint");
      image.style.cursor = image.title ? "pointer" : "";
    };
    const click = ({ offsetX, offsetY }) =>
      model.send({ x: offsetX / image.clientWidth, y: offsetY / image.clientHeight });

    show();
    hint();
    model.on("change:value", show);
    model.on("change:hint", hint);
    image.addEventListener("click", click);
    el.append(image);

    return () => {
      model.off("change:value", show);
      model.off("change:hint", hint);
      URL.revokeObjectURL(image.src);
    };
  },
};
