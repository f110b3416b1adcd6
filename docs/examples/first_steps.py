"""From a folder with a folder for each class to a synthetic set, a CNN and an explanation.

python first_steps.py FOLDER [SIZE [EPOCHS [WEIGHTS]]]
"""

import sys

import kerasmed as km

arguments = dict(enumerate(sys.argv[1:]))
folder, size = arguments.get(0, "smears"), int(arguments.get(1, 64))
epochs, weights = int(arguments.get(2, 200)), arguments.get(3, "imagenet")

# 1. Read the images, and divide them so that no patient or copy is on both sides.
images = km.ImageSet.from_directory(folder, size=size)
roles = images.split(train=0.4, test=0.2, seed=0)

# 2. Train a diffusion model and draw a labelled synthetic set.
ddpm = km.DiffusionModel.from_preset("cpu", roles.train)
ddpm.compile()
preview = km.callbacks.Preview("previews", train=roles.train, validation=roles.validation)
ddpm.fit(roles.train, validation_data=roles.validation, epochs=epochs, callbacks=[preview])
synthetic = ddpm.sample(per_class=40, seed=0)
ddpm.save("ddpm.keras")
ddpm.export("denoiser.onnx")

# 3. Train a CNN with it, first on synthetic and then on real images.
cnn = km.ImageClassifier.from_preset("MobileNetV2", roles.train, weights=weights)
cnn.compile()
cnn.fit(synthetic, validation_data=roles.validation)
cnn.fit(roles.train, validation_data=roles.validation)
cnn.export("cnn.onnx")

# 4. Test and explain the exported file, as any other program would.
model = km.OnnxClassifier("cnn.onnx")
right = model.predict(roles.test.images).argmax(axis=1) == roles.test.labels
print(f"{right.mean():.0%} of {len(roles.test)} unseen images")
image, label = roles.test[0]
km.LimeExplainer(model.predict).explain(image).overlay(label).save("why.png")
