"""Home page, licence and paper of each data set, which a built one shows."""

from __future__ import annotations

from data_prep.clips import clip_dataset

_SEE_PAGE = "see the home page; research use"

PAGES = {
  "epic55": clip_dataset.About(
    homepage="https://epic-kitchens.github.io",
    license="CC BY-NC 4.0",
    citation="""@inproceedings{damen2018scaling,
  title = {Scaling Egocentric Vision: The EPIC-KITCHENS Dataset},
  author = {Damen, Dima and Doughty, Hazel and Farinella, Giovanni Maria and
    Fidler, Sanja and Furnari, Antonino and Kazakos, Evangelos and
    Moltisanti, Davide and Munro, Jonathan and Perrett, Toby and Price, Will and
    Wray, Michael},
  booktitle = {European Conference on Computer Vision (ECCV)},
  year = {2018}
}""",
  ),
  "epic100": clip_dataset.About(
    homepage="https://epic-kitchens.github.io",
    license="CC BY-NC 4.0",
    citation="""@article{damen2022rescaling,
  title = {Rescaling Egocentric Vision: Collection, Pipeline and Challenges for
    EPIC-KITCHENS-100},
  author = {Damen, Dima and Doughty, Hazel and Farinella, Giovanni Maria and
    Furnari, Antonino and Kazakos, Evangelos and Ma, Jian and
    Moltisanti, Davide and Munro, Jonathan and Perrett, Toby and Price, Will and
    Wray, Michael},
  journal = {International Journal of Computer Vision},
  volume = {130},
  year = {2022}
}""",
  ),
  "charades_ego": clip_dataset.About(
    homepage="https://prior.allenai.org/projects/charades-ego",
    license=_SEE_PAGE,
    citation="""@inproceedings{sigurdsson2018actor,
  title = {Actor and Observer: Joint Modeling of First and Third-Person Videos},
  author = {Sigurdsson, Gunnar A. and Gupta, Abhinav and Schmid, Cordelia and
    Farhadi, Ali and Alahari, Karteek},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition (CVPR)},
  year = {2018}
}""",
  ),
  "lemma": clip_dataset.About(
    homepage="https://sites.google.com/view/lemma-activity",
    license=_SEE_PAGE,
    citation="""@inproceedings{jia2020lemma,
  title = {LEMMA: A Multi-view Dataset for Learning Multi-agent Multi-task
    Activities},
  author = {Jia, Baoxiong and Chen, Yixin and Huang, Siyuan and Zhu, Yixin and
    Zhu, Song-Chun},
  booktitle = {European Conference on Computer Vision (ECCV)},
  year = {2020}
}""",
  ),
  "egoexolearn": clip_dataset.About(
    homepage="https://egoexolearn.github.io",
    license="MIT",
    citation="""@inproceedings{huang2024egoexolearn,
  title = {{EgoExoLearn}: A Dataset for Bridging Asynchronous Ego- and Exo-centric
    View of Procedural Activities in Real World},
  author = {Huang, Yifei and Chen, Guo and Xu, Jilan and Zhang, Mingfang and
    Yang, Lijin and Pei, Baoqi and Zhang, Hongjie and Dong, Lu and Wang, Yali and
    Wang, Limin and Qiao, Yu},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year = {2024}
}""",
  ),
  "egomcq": clip_dataset.About(
    homepage="https://github.com/showlab/EgoVLP",
    license="see the licence of Ego4D",
    citation="""@inproceedings{lin2022egocentric,
  title = {Egocentric Video-Language Pretraining},
  author = {Lin, Kevin Qinghong and Wang, Alex Jinpeng and Soldan, Mattia and
    Wray, Michael and Yan, Rui and Xu, Eric Zhongcong and Gao, Difei and
    Tu, Rongcheng and Zhao, Wenzhe and Kong, Weijie and Cai, Chengfei and
    Wang, Hongfa and Damen, Dima and Ghanem, Bernard and Liu, Wei and
    Shou, Mike Zheng},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2022}
}""",
  ),
  "egoyc2": clip_dataset.About(
    homepage="https://github.com/tkhkaeio/Exo2EgoDVC",
    license="MIT (annotations)",
    citation="""@inproceedings{ohkawa2025exo2egodvc,
  title = {{Exo2EgoDVC}: Dense Video Captioning of Egocentric Procedural Activities
    Using Web Instructional Videos},
  author = {Ohkawa, Takehiko and Yagi, Takuma and Nishimura, Taichi and
    Furuta, Ryosuke and Hashimoto, Atsushi and Ushiku, Yoshitaka and
    Sato, Yoichi},
  booktitle = {IEEE/CVF Winter Conference on Applications of Computer Vision (WACV)},
  year = {2025}
}""",
  ),
  "youcook2": clip_dataset.About(
    homepage="http://youcook2.eecs.umich.edu",
    license=_SEE_PAGE,
    citation="""@inproceedings{zhou2018towards,
  title = {Towards Automatic Learning of Procedures from Web Instructional Videos},
  author = {Zhou, Luowei and Xu, Chenliang and Corso, Jason J.},
  booktitle = {AAAI Conference on Artificial Intelligence},
  year = {2018}
}""",
  ),
  "egoexo4d": clip_dataset.About(
    homepage="https://ego-exo4d-data.org",
    license="Ego-Exo4D licence agreement, signed; neither videos nor annotations may be passed on",
    citation="""@inproceedings{grauman2024egoexo4d,
  title = {Ego-Exo4D: Understanding Skilled Human Activity from First- and
    Third-Person Perspectives},
  author = {Grauman, Kristen and Westbury, Andrew and Torresani, Lorenzo and
    others},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition
    (CVPR)},
  year = {2024}
}""",
  ),
  "egtea": clip_dataset.About(
    homepage="https://cbs.ic.gatech.edu/fpv",
    license=_SEE_PAGE,
    citation="""@inproceedings{li2018eye,
  title = {In the Eye of Beholder: Joint Learning of Gaze and Actions in First Person
    Video},
  author = {Li, Yin and Liu, Miao and Rehg, James M.},
  booktitle = {European Conference on Computer Vision (ECCV)},
  year = {2018}
}""",
  ),
}
